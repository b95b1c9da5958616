"""
``--level auto``: adapt the level to the speed of the destination.

Workers count the time of their tasks and the part of it spent writing, and run only a few batches
ahead of the disk. If much of the time is writing, the destination is slow and better compression
costs nothing; if little is, a faster level saves time.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable

from snapmig.handlers.counters import Counter
from snapmig.workers.counters import Row

__all__ = ("AdaptiveLevel",)

SAMPLE_NS = 200_000_000
"""
Work of all workers together between two decisions: some 10 batches, so that a single slow write
does not decide.
"""
TOO_SLOW = 0.5
TOO_FAST = 0.15
"""
Shares of writing in the time of work. The next better level costs up to three times as much, so
between these two no other level is sure to be better. zlib's level 6 costs 7 times as much as level
3 and is not a step: with it a save to a disk of 10 MiB/s took twice as long as with level 1.
"""


class AdaptiveLevel:
    """
    Chooses the level for the next batch.

    :param steps: levels, the fastest first
    :param start: the initial level, one of these
    :param total: returns the sum of the workers' counters
    :ivar batches: number of batches for each level
    """

    def __init__(self, steps: tuple[int, ...], start: int, total: Callable[[], Row]) -> None:
        self._steps = steps
        self._at = steps.index(start)
        self._total = total
        self._work_ns = 0
        self._write_ns = 0
        self.batches: Tally[int] = Tally()

    def __call__(self, waited_ns: int = 0) -> int:
        """
        Return it.

        :param waited_ns: time of all workers spent waiting for object storage; counts as writing
        """
        row = self._total()
        work_ns = int(row[Counter.WORK_NS]) + waited_ns
        write_ns = int(row[Counter.WRITE_NS]) + waited_ns
        work = work_ns - self._work_ns
        if work >= SAMPLE_NS:
            self._step((write_ns - self._write_ns) / work)
            self._work_ns, self._write_ns = work_ns, write_ns
        level = self._steps[self._at]
        self.batches[level] += 1
        return level

    def _step(self, share: float) -> None:
        if share > TOO_SLOW:
            self._at = min(self._at + 1, len(self._steps) - 1)
        elif share < TOO_FAST:
            self._at = max(self._at - 1, 0)
