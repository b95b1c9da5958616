"""
A limit on the bytes that workers write per second.

The parent alone enforces it, by holding tasks back. No worker sleeps while it has work, no share of
an idle one stays unused, and nothing shared needs a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ("RateLimiter",)

_BURST_S = 0.1
"""Allowance saved up while nothing is written, in seconds of the rate."""


class RateLimiter:
    """
    A token bucket: it fills with time and is emptied by writes.

    It may go into debt, because the size of a write is known only when its task is done. Over
    seconds the rate holds; it is exceeded by at most one task per worker.

    :ivar rate: bytes per second
    :param counter: the counter of bytes written
    """

    def __init__(
        self, rate: int, counter: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counter = counter
        self.rate = rate
        self._clock = clock
        self._bytes = rate * _BURST_S
        self._last = clock()

    def spend(self, count: int) -> None:
        """Take the bytes just written out of the bucket."""
        self._bytes -= count

    def wait_s(self) -> float:
        """Return the seconds until more may be written, 0 for now."""
        now = self._clock()
        self._bytes = min(self._bytes + (now - self._last) * self.rate, self.rate * _BURST_S)
        self._last = now
        return max(0.0, -self._bytes / self.rate)
