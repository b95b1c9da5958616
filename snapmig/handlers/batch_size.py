"""Number of packets handed to a worker at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from snapmig.handlers.counters import Counter
from snapmig.workers.counters import Row

__all__ = (
    "BATCH_NS",
    "LARGEST",
    "MIXED_NS",
    "MOST",
    "SMALLEST",
    "BatchSizes",
    "batch_packets",
    "useful_workers",
)

SMALLEST = 4 << 20
"""Bytes of RAM: 10 ms of work, short enough for no worker to wait long for another's last batch."""
LARGEST = 16 << 20
"""
Each batch costs its worker and the parent half a millisecond besides the work: a save of 1 GiB with
few changes took a fifth less processor time with these than with the smallest.
"""
MOST = 128 << 20
"""
Bytes of RAM, where there is little in it: then a batch is worth its cost again. No more, because
dense memory may follow, and its batches keep one worker busy for as long as they are large.
"""
BATCH_NS = 20_000_000
MIXED_NS = 10_000_000
"""Time of a batch, where there is little in it; half of it where codecs take turns."""
_SHARES = 32
_SHARES_A_WORKER = 2
"""
Tasks that each worker has ahead: with many workers, a share of what is left must be no larger than
what each of them gets. By computation, 16 GiB of RAM at 1.3 ms a packet then take 256 workers 1.06
times the least possible instead of 1.19, and 64 workers 1.02 instead of 1.04.
"""


def batch_packets(left: int, packet_size: int, largest: int = LARGEST, workers: int = 1) -> int:
    """
    Return the number of packets to hand out at once.

    Batches get smaller towards the end, so that all workers finish at the same time.

    :param left: packets not handed out yet
    """
    shares = max(_SHARES, _SHARES_A_WORKER * workers)
    size = min(max(left * packet_size // shares, SMALLEST), largest)
    return max(1, size // packet_size)


def useful_workers(jobs: int, sizes: Iterable[int]) -> int:
    """
    Return a number of workers, or that of the batches if there are fewer.

    The start of one without a batch takes 3 ms.

    :param sizes: bytes of the RAM blocks, for no batch is of two of them
    """
    return min(jobs, max(1, sum(-(-size // SMALLEST) for size in sizes)))


class BatchSizes:
    """
    Numbers of packets of one pass, larger where those before took little time.

    :param packet_size: bytes of RAM in a packet
    :param total: returns the sum of the workers' counters; None: all are as for dense memory
    :param most: bytes of RAM in the largest, if it takes no more than `batch_ns`
    """

    def __init__(
        self,
        packet_size: int,
        largest: int = LARGEST,
        workers: int = 1,
        total: Callable[[], Row] | None = None,
        most: int = MOST,
        batch_ns: int = BATCH_NS,
    ) -> None:
        self._packet_size = packet_size
        self._least = self._largest = largest
        self._workers = workers
        self._total = total
        self._most = most
        self._batch_ns = batch_ns
        self._before = None if total is None else total()

    def __call__(self, left: int) -> int:
        """
        Return the number of packets of the next batch.

        :param left: packets not handed out yet
        """
        if self._total is not None and self._before is not None:
            row = self._total()
            done = int(row[Counter.RAM_BYTES] - self._before[Counter.RAM_BYTES])
            if done >= self._least * self._workers:
                took = int(row[Counter.WORK_NS] - self._before[Counter.WORK_NS])
                fitting = done * self._batch_ns // max(took, 1)
                self._largest = min(max(fitting, self._least), self._most)
                self._before = row
        return batch_packets(left, self._packet_size, self._largest, self._workers)
