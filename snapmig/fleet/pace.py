"""
A limit on what workers write per second.

The parent keeps to it alone, by holding tasks back: no worker sleeps over work that it has, none
has an idle one's share left unused, and nothing is shared that would need a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ("Pace",)

_BURST_S = 0.1
"""What may be saved up while nothing is written, as seconds of the rate."""


class Pace:
    """
    A bucket that fills with time and is emptied by what was written.

    It may owe: what is written is known when a task is done. Over seconds the rate holds, and is
    passed by no more than one task of each worker.

    :param rate: bytes per second
    :param cell: the counter of bytes written
    """

    def __init__(self, rate: int, cell: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.cell = cell
        self._rate = rate
        self._clock = clock
        self._bytes = rate * _BURST_S
        self._last = clock()

    def spend(self, count: int) -> None:
        """Take what was written out of the bucket."""
        self._bytes -= count

    def wait_s(self) -> float:
        """Return the seconds until more may be written, 0 for now."""
        now = self._clock()
        self._bytes = min(self._bytes + (now - self._last) * self._rate, self._rate * _BURST_S)
        self._last = now
        return max(0.0, -self._bytes / self._rate)
