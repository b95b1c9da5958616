"""Search of guest RAM for bytes: packets decoded by threads, places reported in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from snapmig.errors import UsageError
from snapmig.operations.runs.random_access import RandomAccess

__all__ = ("find_all",)

_AHEAD = 2
"""Packets searched before their turn, for each job."""


def find_all(memory: RandomAccess, pattern: bytes, packets: range, jobs: int) -> Iterator[int]:
    """
    Yield the RAM offset of each place with some bytes, in order.

    :raises UsageError: a pattern that is empty, larger than a packet or of zeros only
    """
    if not 0 < len(pattern) <= memory.geometry.packet_size:
        message = f"pattern has {len(pattern)} bytes, expected 1 to {memory.geometry.packet_size}"
        raise UsageError(message)
    if not pattern.strip(b"\0"):
        raise UsageError("pattern has zeros only, expected another byte")
    return _in_order(memory, pattern, packets, jobs)


def _in_order(memory: RandomAccess, pattern: bytes, packets: range, jobs: int) -> Iterator[int]:
    find = partial(_find_in, memory, pattern)
    waiting: deque[Future[list[int]]] = deque()
    with ThreadPoolExecutor(jobs, "search") as threads:
        try:
            for number in packets:
                waiting.append(threads.submit(find, number))
                if len(waiting) > _AHEAD * jobs:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _find_in(memory: RandomAccess, pattern: bytes, number: int) -> list[int]:
    # Places that begin in a packet; they may end in the next one of the same RAM block.
    geometry = memory.geometry
    place = geometry.place(number)
    start, stop = place.ram_offset, place.ram_offset + place.length
    end = geometry.block_start(place.block) + geometry.blocks[place.block].size
    pieces = list(memory.pieces(start, min(end, stop + len(pattern) - 1)))
    if all(map(memory.packets.is_empty, pieces)):
        return []
    content = b"".join(piece.data for piece in pieces)
    found, at = [], content.find(pattern)
    while at >= 0:
        found.append(start + at)
        at = content.find(pattern, at + 1)
    return found
