"""
``--level auto``: a level that follows the speed of the destination.

Workers count the time of their tasks and what of it passes in writing, and run no further ahead of
the disk than a few batches. While much of the time is writing, the destination is slow, and a
better compression costs nothing; while little is, a faster level saves time.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable

from snapmig.handlers.counters import Counter
from snapmig.workers.counters import Row

__all__ = ("AdaptiveLevel",)

SAMPLE_NS = 200_000_000
"""Work, of all workers together, between two decisions: some 10 batches, so that one slow write
does not decide alone."""
TOO_SLOW = 0.5
TOO_FAST = 0.15
"""Shares of writing in the time of work. The next better level costs up to three times as much, so
between these two no other level is sure to be better. zlib's level 6 costs 7 times level 3 and is
no step: with it a save to a disk of 10 MiB/s took twice as long as with level 1."""


class AdaptiveLevel:
    """
    Gives the level for the next batch.

    :param steps: levels, the fastest first
    :param start: one of them
    :param total: returns the workers' counters, summed up
    :ivar batches: how many batches each level was given to
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
