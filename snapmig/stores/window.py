"""
The number of requests under way at once: more while that is faster, fewer while it is not slower.

No number is right everywhere: a link needs its bandwidth times its delay, a server may give each
connection only so much, and asks for fewer requests by refusing some (decision 55).
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ("FIRST", "LEAST", "Window")

FIRST, LEAST = 12, 4
"""
Requests at the beginning, and the fewest by trials. Twelve of 8 MiB fill 1 Gbit/s over 0.8 s, and
1 GB/s where a connection has 90 MB/s, so that few transfers need a trial.
"""
GAIN = 1.05
"""Times as fast as before, for a larger window to be kept."""
LOSS = 1.0
"""Times as fast as before, at least, for a smaller one."""
ROUND_S = 0.5
"""Least time over which speed is measured: shorter ones see single requests end."""
REST, MOST_REST = 8, 64
"""
Rounds before a trial, twice as many after each in vain: one costs half a second of a far link of
0.5 Gbit/s, whose connections lose segments and then compete anew.
"""


class Window:
    """
    A limit on requests under way; any thread may tell it of their ends.

    :param first: at the beginning
    :param least: to which it shrinks if others do as well
    :param most: to which it grows
    :ivar size: requests that may be under way now
    """

    def __init__(
        self, first: int, least: int, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = max(1, most)
        self._least = min(least, self._most)
        self.size = min(first, self._most)
        self._clock = clock
        self._lock = threading.Lock()
        self._before = self.size
        self._moved = 0
        self._speeds: deque[float] = deque(maxlen=REST)
        self._up = False
        self._rests, self._rest = 0, REST
        self._deaf = 0
        self._begin_round()

    def done(self, length: int, *, repeated: bool = False, arrived: int = 0) -> None:
        """
        Note the end of a request.

        :param length: bytes that it moved
        :param repeated: the server refused it before, or a connection broke
        :param arrived: bytes that all have moved so far, if these are known, as they don't end in
            their order
        """
        with self._lock:
            self._moved = arrived or self._moved + length
            self._deaf = max(0, self._deaf - 1)
            if repeated:
                self._halve()
                return
            self._count += 1
            if self._count <= self.size:  # begun before the round
                self._since, self._before_round = self._clock(), self._moved
                return
            passed = self._clock() - self._since
            if self._count >= 2 * self.size and passed >= ROUND_S:
                self._end_round((self._moved - self._before_round) / passed)

    def _begin_round(self) -> None:
        self._count = 0
        self._since, self._before_round = self._clock(), self._moved

    def _halve(self) -> None:
        if not self._deaf:  # once for all that are under way together
            self._deaf = self.size
            self.size = self._before = max(1, self.size // 2)
            self._up, self._rests, self._rest = False, 0, REST
        self._begin_round()

    def _end_round(self, speed: float) -> None:
        self._begin_round()
        if self.size == self._before:
            self._speeds.append(speed)
            self._rests += 1
            if self._rests == self._rest:
                self._up, self._rests = not self._up, 0
                self._try()
        elif speed >= statistics.median(self._speeds) * (GAIN if self._up else LOSS):
            self._before, self._rest = self.size, REST
            self._speeds = deque([speed], maxlen=REST)
            if self._up:
                self._try()
        else:
            self.size = self._before
            self._rest = min(2 * self._rest, MOST_REST)

    def _try(self) -> None:
        if self._up:
            self.size = min(self.size + max(1, self.size // 2), self._most)
        elif self.size > self._least:
            self.size = max(self._least, self.size * 3 // 4)
