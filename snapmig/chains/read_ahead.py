"""Packets decoded before they are asked for: behind a reader in order, or in a recorded order."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from snapmig.chains.packet_cache import PacketCache

__all__ = ("TOGETHER", "ReadAhead", "near_groups")

_READERS = 16
"""Readers in order, followed side by side."""
_IN_ORDER = 3
"""Packets after which a reader counts as one in order: guests touch two neighbours by chance."""
TOGETHER = 16
"""Packets asked for at once: some 3 MB as they are stored, for which no reader waits long."""
_NEAR = 2
"""Distance of two packets asked for together: to read one between takes less than a request."""
_SOON = 8
"""Groups' worth of packets in a recorded order among which neighbours are looked for."""


class ReadAhead:
    """
    Decodes packets ahead, in threads of its own.

    :param count: packets of the snapshot
    :param threads: most packets, or groups of them, decoded ahead side by side
    :param remote: reading takes a round trip over a network, so neighbours are read together
    """

    def __init__(
        self, packets: PacketCache, count: int, threads: int, *, remote: bool = False
    ) -> None:
        self._packets = packets
        self._count = count
        self._together = max(1, min(TOGETHER, packets.capacity // 8)) if remote else 1
        self._depth = min(2 * max(threads, self._together), packets.capacity // 4)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "ahead")
        self._recorded = ThreadPoolExecutor(threads, "recorded")
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._last = -1
        self._known: frozenset[int] = frozenset()
        self._ended = False

    def asked(self, number: int) -> None:
        """Note a packet that a reader asks for."""
        with self._lock:
            if number == self._last or number in self._known:
                return
            self._last = number
            # By the packet that would be next: how many came in order, and where decoding is.
            length, reached = self._readers.pop(number, (0, number + 1))
            goal = reached
            if length + 1 >= _IN_ORDER:
                wanted = min(number + 1 + self._depth, self._count)
                if wanted - reached >= self._together or wanted == self._count:
                    goal = max(reached, wanted)
            self._readers[number + 1] = length + 1, goal
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)
            if not self._ended:
                start = max(reached, number + 1)
                for first in range(start, goal, self._together):
                    last = min(first + self._together, goal)
                    self._pool.submit(self._decode, range(first, last))

    def start(self, numbers: Iterable[int]) -> None:
        """Decode packets in this order while less than a quarter of the cache waits for readers."""
        known = tuple(numbers)
        groups = deque(near_groups(known, self._together))
        # Behind a reader of these are others than what is asked for next.
        self._known = frozenset(known)
        for _ in range(max(1, self._threads // 2)):
            self._recorded.submit(self._follow, groups)

    def stop(self) -> None:
        """Begin nothing more, and wait for the packets under way."""
        with self._lock:
            self._ended = True
        self._packets.let_go()
        for pool in (self._pool, self._recorded):
            pool.shutdown(cancel_futures=True)

    def _follow(self, groups: deque[list[int]]) -> None:
        with suppress(IndexError):  # none is left
            while not self._ended:
                self._packets.wait_for_room()
                self._decode(groups.popleft())
        self._known = frozenset()

    def _decode(self, numbers: Sequence[int]) -> None:
        if not self._ended:
            self._packets.fetch(numbers)


def near_groups(numbers: Iterable[int], largest: int) -> Iterator[list[int]]:
    """
    Yield packets near each other together, nearly in the order given.

    Packets asked for soon after each other are put in order and cut where more than a packet is
    missing between two of them.

    :param largest: packets in a group; 1: leave them in their order
    """
    left = list(dict.fromkeys(numbers))
    if largest == 1:
        yield from ([number] for number in left)
        return
    for start in range(0, len(left), _SOON * largest):
        soon = left[start : start + _SOON * largest]
        rank = {number: at for at, number in enumerate(soon)}
        groups: list[list[int]] = []
        for number in sorted(soon):
            if groups and number - groups[-1][-1] <= _NEAR and len(groups[-1]) < largest:
                groups[-1].append(number)
            else:
                groups.append([number])
        yield from sorted(groups, key=lambda group: min(rank[number] for number in group))
