"""Encoding packets in a worker: jobs to a coder, several in flight if it takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from snapmig.container.format import Encoding
from snapmig.encodings.coders import Coder
from snapmig.encodings.compressions import PacketSettings, make_compressor
from snapmig.encodings.fallback import Failures
from snapmig.encodings.packet import EncodedPacket, Summary, looks_random, pack, size_limit

__all__ = ("PacketEncoder",)

Key = TypeVar("Key")


class PacketEncoder:
    """
    Encodes summaries of packets.

    :ivar failures: packets done by software instead of the engine
    """

    def __init__(self, settings: PacketSettings) -> None:
        self._settings = settings
        self._coders: dict[int, Coder] = {}
        self.failures = Failures()

    def encode(self, summary: Summary) -> EncodedPacket:
        """Return one packet, at the level of the settings."""
        ((_, packet),) = self.encode_all([(0, summary)])
        return packet

    def encode_all(
        self, summaries: Iterable[tuple[Key, Summary]], level: int | None = None
    ) -> Iterator[tuple[Key, EncodedPacket]]:
        """
        Yield packets under the keys of their summaries, in any order.

        A packet's payload is valid until the next packet.

        :param level: replaces that of the settings
        :raises SnapmigError: the library of the format is missing
        """
        encoding = self._settings.encoding
        coder = self._coder(self._settings.deflate.level if level is None else level)
        waiting: dict[int, tuple[Key, Summary]] = {}
        for job, (key, summary) in enumerate(summaries):
            if coder is None or len(summary.data) <= 1 or looks_random(summary.data):
                yield key, pack(summary, encoding, None)
                continue
            waiting[job] = key, summary
            coder.submit(job, summary.data, size_limit(summary.data))
            if len(waiting) >= coder.depth:
                yield _reap(coder, waiting, encoding)
        while coder is not None and waiting:
            yield _reap(coder, waiting, encoding)

    def _coder(self, level: int) -> Coder | None:
        if self._settings.encoding == Encoding.RAW:
            return None
        if level not in self._coders:
            self._coders[level] = make_compressor(self._settings, level, self.failures)
        return self._coders[level]


def _reap(
    coder: Coder, waiting: dict[int, tuple[Key, Summary]], encoding: Encoding
) -> tuple[Key, EncodedPacket]:
    done = coder.reap()
    if done.error is not None:  # a failure of the reference itself
        raise RuntimeError(done.error)
    key, summary = waiting.pop(done.key)
    return key, pack(summary, encoding, done.result)
