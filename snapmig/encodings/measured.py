"""Time and bytes of a worker's coders, and probes of codecs not in use."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns

from snapmig.container.format import Encoding
from snapmig.encodings.coders import Coder, Done
from snapmig.encodings.compressions import Codec, PacketSettings, make_compressor
from snapmig.encodings.engines import find_engine
from snapmig.encodings.fallback import Failures
from snapmig.encodings.packet import looks_random, size_limit
from snapmig.pages import Bytes
from snapmig.system.files import Buffer

__all__ = ("Figures", "MeasuredCoder", "Probes", "Sums")

PROBE_SHARE, RARE_PROBE_SHARE = 50, 800
"""
Times as long as its last probe took that a worker goes on before the next: 2 % at most. While the
fastest codec is in use, the next one is always twice as far away, up to the second figure.
"""
PROBE_AHEAD = 2
"""Codecs probed beyond the one in use: the slowest would take most of the time, and is far off."""
_FULL_PACKET = 512 << 10


class Sums:
    """
    Sums over packets, codec by codec.

    :ivar data: bytes of pages given to each codec
    :ivar ns: nanoseconds that it took
    :ivar stored: bytes that it made
    """

    def __init__(self, codecs: int) -> None:
        self.data = [0] * codecs
        self.ns = [0] * codecs
        self.stored = [0] * codecs


class Figures(Sums):
    """
    Sums of a worker: of packets stored, and of packets only tried.

    :ivar probed: sums of the probes
    """

    def __init__(self, codecs: int) -> None:
        super().__init__(codecs)
        self.probed = Sums(codecs)


class MeasuredCoder:
    """
    A coder with its time and bytes counted.

    :param at: the codec's place in the sums
    """

    def __init__(self, coder: Coder, sums: Sums, at: int) -> None:
        self.depth = coder.depth
        self._coder = coder
        self._sums = sums
        self._at = at
        self._sizes: dict[int, int] = {}

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """Start a job."""
        started = perf_counter_ns()
        self._coder.submit(key, data, size)
        self._sums.ns[self._at] += perf_counter_ns() - started
        self._sizes[key] = memoryview(data).nbytes

    def reap(self) -> Done:
        """Wait for one of the jobs in flight."""
        started = perf_counter_ns()
        done = self._coder.reap()
        size = self._sizes.pop(done.key)
        self._sums.ns[self._at] += perf_counter_ns() - started
        self._sums.data[self._at] += size
        made = size if done.result is None else len(done.result)
        self._sums.stored[self._at] += min(size, made)  # a larger packet is stored as it is
        return done


class Probes:
    """
    Tries of the same packet by several codecs, now and then.

    Only the same pages tell codecs apart: packets differ more from each other.

    :param sums: of the tries
    """

    def __init__(self, settings: PacketSettings, sums: Sums) -> None:
        self._codecs = settings.codecs
        self._settings = settings
        self._sums = sums
        self._coders: dict[int, Coder] = {}
        self._cost_ns = 0.0
        self._share = PROBE_SHARE
        self._ended_ns = perf_counter_ns()

    def look(self, data: Bytes, at: int) -> None:
        """
        Try a packet if that is due.

        :param at: the codec in use
        """
        now = perf_counter_ns()
        nearest = range(min(at + PROBE_AHEAD + 1, len(self._codecs)))
        cost = self._cost_ns or _expected_ns([self._codecs[each] for each in nearest])
        if now - self._ended_ns < cost * self._share or looks_random(data):
            return
        for each in nearest:
            if self._can_try(self._codecs[each]):
                self._try(data, each)
        self._ended_ns = perf_counter_ns()
        self._cost_ns = self._ended_ns - now
        self._share = PROBE_SHARE if at else min(2 * self._share, RARE_PROBE_SHARE)

    def _can_try(self, codec: Codec) -> bool:
        # A device may have other jobs in flight.
        if codec.encoding == Encoding.DEFLATE:
            return find_engine(self._settings.engine).trusted
        return codec.encoding != Encoding.RAW

    def _try(self, data: Bytes, at: int) -> None:
        if at not in self._coders:
            coder = make_compressor(self._settings, self._codecs[at], Failures())
            self._coders[at] = MeasuredCoder(coder, self._sums, at)
        self._coders[at].submit(0, data, size_limit(data))
        self._coders[at].reap()


def _expected_ns(codecs: Sequence[Codec]) -> float:
    return sum(codec.ns for codec in codecs) * _FULL_PACKET
