"""A save by a made-up machine in made-up time, whose codecs and destination cost what is given."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from snapmig.encodings.compressions import Codec
from snapmig.handlers.codec_choice import CodecChoice
from snapmig.handlers.counters import Counter
from snapmig.handlers.packet_store import batches_ahead
from snapmig.workers.counters import COUNTERS

BATCH = 4 << 20
OTHER_NS = 0.5
"""Nanoseconds for a byte besides encoding and writing."""
WRITE_NS = 0.4
"""Nanoseconds for a stored byte on its way to the page cache."""
STRETCHES = (
    "0.9*4 0.58*2 0.35*8 0.16*7 0.43*3 0.57*35 0.2*66 0.46*3 0.2*46 0.53 0.28*126 0.3*8 0.25*2"
    " 0.1*2 0.3*7 0.53*8 0.06 0.58 0.14 0.52 0.22*2 0.11*6 0.06*16 0.6*5 0.3*5 0.5*5 0.2*3 0.56*3"
    " 0.22*4 0.5*8 0.18*5 0.3 0.1*8"
)
"""Stored bytes for a byte of zstd 1, over so many batches: those of a Linux guest of 2 GiB."""
SPREAD = 0.15
"""By how much packets of a stretch differ: the deviation of the logarithm of their ratio."""


class _Batch(NamedTuple):
    codec: int
    stored: int
    encode_ns: int
    write_ns: int

    @property
    def ns(self) -> float:
        return BATCH * OTHER_NS + self.encode_ns + self.write_ns


class MadeUpSave:
    """
    A save of some batches.

    :param true: codecs with their real costs
    :param bandwidth: bytes a nanosecond of the destination
    :param late_ns: nanoseconds after the last byte of a batch until its worker knows
    :ivar row: the sum of the workers' counters
    :ivar now: nanoseconds
    :ivar ns: when the last byte is written
    :ivar stored: bytes
    :ivar used: batches of each codec
    """

    def __init__(
        self,
        true: Sequence[Codec],
        bandwidth: float,
        workers: int = 2,
        batches: int = 500,
        late_ns: int = 0,
    ) -> None:
        self.row = np.zeros(COUNTERS, np.int64)
        self.now = 0.0
        self._true = true
        self._bandwidth = bandwidth
        self._late_ns = late_ns
        self._draw = np.random.default_rng(1)
        self._memory = cycle(_hardnesses())
        self._here = 1.0
        self._probed = 0
        self._free = 0.0
        self._paced = False
        self._written: list[deque[tuple[float, int]]] = [deque() for _ in range(workers)]
        self._counts = [0] * workers
        self._workers = workers
        self._batches = batches
        self.ns = 0.0
        self.stored = 0
        self.used = [0] * len(true)

    def run(self, choose: Callable[[], int]) -> MadeUpSave:
        """Do it, with workers any number of batches ahead of the destination."""
        left = self._batches
        events: list[tuple[float, int, _Batch | None]] = [
            (0.0, number, None) for number in range(self._workers)
        ]
        while events:
            self.now, number, batch = heapq.heappop(events)
            if batch is not None:
                self._counts[number] += 1
                wait_ns = self._write(batch, self._written[number], self._counts[number])
                heapq.heappush(events, (self.now + wait_ns, number, None))
            elif left:
                left -= 1
                batch = self._encode(choose())
                heapq.heappush(events, (self.now + batch.ns, number, batch))
        self.ns = max(self.now, self._free)
        return self

    def follow(
        self, assumed: Sequence[Codec], rate: int | None = None, *, in_memory: bool = False
    ) -> MadeUpSave:
        """Do it with a choice that has other costs in mind before it measures, close behind it."""
        self._paced = True
        row, clock = self.row.copy, lambda: self.now / 1e9
        choice = CodecChoice(assumed, 1, self._workers, rate, row, clock, in_memory=in_memory)
        return self.run(choice)

    def _encode(self, at: int) -> _Batch:
        self._here = next(self._memory)
        codec, hard = self._true[at], self._hardness()
        stored = int(BATCH * min(1.0, codec.ratio * hard))
        encode_ns = int(BATCH * codec.ns * self._draw.uniform(0.8, 1.2))
        self.used[at] += 1
        return _Batch(at, stored, encode_ns, int(stored * WRITE_NS))

    def _hardness(self) -> float:
        # Of a packet here, beside that of a usual one.
        return self._here * self._draw.lognormal(-SPREAD * SPREAD / 2, SPREAD)

    def _write(self, batch: _Batch, written: deque[tuple[float, int]], count: int) -> int:
        # Return how long the worker waits for an older batch.
        self._free = max(self._free, self.now) + batch.stored / self._bandwidth
        written.append((self._free + self._late_ns, batch.stored))
        wait_ns = 0
        if self._paced and len(written) > batches_ahead(count):
            free, drained = written.popleft()
            wait_ns = max(0, int(free - self.now))
            self.row[Counter.DRAINED_BYTES] += drained
        self.stored += batch.stored
        self._count(batch, wait_ns)
        self._probe()
        return wait_ns

    def _count(self, batch: _Batch, wait_ns: int) -> None:
        row = self.row
        row[Counter.WORK_NS] += int(batch.ns) + wait_ns
        row[Counter.WRITE_NS] += batch.write_ns + wait_ns
        row[Counter.WAIT_NS] += wait_ns
        row[Counter.WRITTEN_BYTES] += batch.stored
        row[Counter.CODEC_DATA + batch.codec] += BATCH
        row[Counter.CODEC_NS + batch.codec] += batch.encode_ns
        row[Counter.CODEC_STORED + batch.codec] += batch.stored

    def _probe(self) -> None:
        # One packet of a batch in 60, by all codecs, in no time.
        if self._draw.integers(60):
            return
        size, hard = 512 << 10, self._hardness()
        for at, codec in enumerate(self._true):
            if codec.ratio < 1:
                self.row[Counter.PROBE_DATA + at] += size
                self.row[Counter.PROBE_NS + at] += int(size * codec.ns)
                self.row[Counter.PROBE_STORED + at] += int(size * min(1, codec.ratio * hard))
        probed = self.row[Counter.PROBE_NS : Counter.PROBE_NS + len(self._true)].sum()
        self.row[Counter.WORK_NS] += int(probed) - self._probed
        self._probed = int(probed)


def _hardnesses() -> list[float]:
    # Of each batch, 1 in the mean.
    pairs = (stretch.partition("*") for stretch in STRETCHES.split())
    ratios = [float(ratio) for ratio, _, number in pairs for _ in range(int(number or 1))]
    return [ratio * len(ratios) / sum(ratios) for ratio in ratios]
