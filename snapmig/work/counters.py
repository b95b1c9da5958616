"""What workers count while they work, in their cells (see :mod:`snapmig.fleet.cells`)."""

from __future__ import annotations

from enum import IntEnum

from snapmig.container.format import Encoding

__all__ = ("Counter", "encoding_counter")


class Counter(IntEnum):
    """The number of a cell."""

    RAM_BYTES = 0
    """Bytes of guest RAM whose packets are finished: written, not issued."""
    STORED_BYTES = 1
    DATA_PAGES = 2
    EMPTY_PACKETS = 3
    RAW_PACKETS = 4
    DEFLATE_PACKETS = 5
    DAMAGED_PACKETS = 6
    CHANGED_PACKETS = 7
    """Packets that a second look found changed since the first."""


_BY_ENCODING: dict[int, Counter] = {
    Encoding.EMPTY: Counter.EMPTY_PACKETS,
    Encoding.RAW: Counter.RAW_PACKETS,
    Encoding.DEFLATE: Counter.DEFLATE_PACKETS,
}


def encoding_counter(encoding: int) -> Counter:
    """Return the counter of packets in an encoding."""
    return _BY_ENCODING[encoding]
