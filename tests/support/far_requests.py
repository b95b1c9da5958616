"""A link to a server as numbers: requests end when its delay, its room and the server allow."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from snapmig.stores.window import Window


@dataclass
class FarRequests:
    """
    Transfers of one length over a link, in a time of its own.

    :param delay_s: from a request to its first byte
    :param rate: bytes a second of the link
    :param connection_rate: most of it for one connection
    :param served: most requests at once of which none is refused
    :param uneven: a request's delay is up to so many times longer, by chance
    :ivar now: seconds since the beginning
    :ivar sizes: of the window, after each request
    """

    delay_s: float
    rate: float = 125e6
    connection_rate: float = 1e12
    length: int = 2 << 20
    served: int = 1 << 30
    uneven: float = 0.0
    now: float = 0.0
    sizes: list[int] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def run(self, window: Window, count: int, change: Callable[[int], None] | None = None) -> float:
        """
        Make so many requests, as many at once as the window allows.

        :param change: called with the number of each one that has ended
        :returns: the share of the link's room that was used
        """
        underway: list[tuple[float, bool]] = []
        begun, free_at, start = 0, self.now, self.now
        for ended in range(count):
            while begun < count and len(underway) < window.size:
                begun += 1
                free_at = max(free_at, self.now) + self.length / self.rate
                alone = self.now + self.length / self.connection_rate
                refused = len(underway) >= self.served
                delay_s = self.delay_s * (1 + self.uneven * self.chance.random() ** 4)
                heapq.heappush(underway, (max(free_at, alone) + delay_s, refused))
            self.now, refused = heapq.heappop(underway)
            window.done(self.length, repeated=refused)
            self.sizes.append(window.size)
            if change is not None:
                change(ended)
        return count * self.length / (self.now - start) / self.rate
