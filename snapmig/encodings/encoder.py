"""Encoding packets in a worker: jobs to a coder, several in flight if it takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from snapmig.container.format import Encoding
from snapmig.encodings.coders import Coder
from snapmig.encodings.compressions import PacketSettings, make_compressor
from snapmig.encodings.fallback import Failures
from snapmig.encodings.measured import Figures, MeasuredCoder, Probes
from snapmig.encodings.packet import EncodedPacket, Summary, looks_random, pack, size_limit

__all__ = ("PacketEncoder",)

Key = TypeVar("Key")


class PacketEncoder:
    """
    Encodes summaries of packets.

    :ivar failures: packets done by software instead of the engine
    :ivar figures: time and bytes of the codecs
    """

    def __init__(self, settings: PacketSettings) -> None:
        self._settings = settings
        self._codecs = settings.codecs
        self._coders: dict[int, Coder] = {}
        self.failures = Failures()
        self.figures = Figures(len(self._codecs))
        self._probes = Probes(settings, self.figures.probed) if settings.adapts else None

    def encode(self, summary: Summary) -> EncodedPacket:
        """Return one packet, by the first codec of the settings."""
        ((_, packet),) = self.encode_all([(0, summary)])
        return packet

    def encode_all(
        self, summaries: Iterable[tuple[Key, Summary]], codec: int = 0
    ) -> Iterator[tuple[Key, EncodedPacket]]:
        """
        Yield packets under the keys of their summaries, in any order.

        A packet's payload is valid until the next packet.

        :param codec: its place among those of the settings
        :raises SnapmigError: the library of the format is missing
        """
        encoding = self._codecs[codec].encoding
        coder = self._coder(codec)
        waiting: dict[int, tuple[Key, Summary]] = {}
        for job, (key, summary) in enumerate(summaries):
            data = summary.data
            if self._probes is not None and len(data) > 1:
                self._probes.look(data, codec)
            if coder is None or len(data) <= 1 or looks_random(data):
                if coder is None:
                    self.figures.data[codec] += data.nbytes
                    self.figures.stored[codec] += data.nbytes
                yield key, pack(summary, encoding, None)
                continue
            waiting[job] = key, summary
            coder.submit(job, data, size_limit(data))
            if len(waiting) >= coder.depth:
                yield _reap(coder, waiting, encoding)
        while coder is not None and waiting:
            yield _reap(coder, waiting, encoding)

    def _coder(self, codec: int) -> Coder | None:
        if self._codecs[codec].encoding == Encoding.RAW:
            return None
        if codec not in self._coders:
            coder = make_compressor(self._settings, self._codecs[codec], self.failures)
            self._coders[codec] = MeasuredCoder(coder, self.figures, codec)
        return self._coders[codec]


def _reap(
    coder: Coder, waiting: dict[int, tuple[Key, Summary]], encoding: Encoding
) -> tuple[Key, EncodedPacket]:
    done = coder.reap()
    if done.error is not None:  # a failure of the reference itself
        raise RuntimeError(done.error)
    key, summary = waiting.pop(done.key)
    return key, pack(summary, encoding, done.result)
