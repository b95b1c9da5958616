"""What workers count while they work, in their cells (see :mod:`snapmig.workers.counters`)."""

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
    """Pages that are not zero."""
    EMPTY_PACKETS = 3
    RAW_PACKETS = 4
    DEFLATE_PACKETS = 5
    ZSTD_PACKETS = 6
    LZ4_PACKETS = 7
    DAMAGED_PACKETS = 8
    CHANGED_PACKETS = 9
    """Packets that a second look found changed since the first."""
    WORK_NS = 10
    """Nanoseconds in which tasks were done, and those of them that passed in writing."""
    WRITE_NS = 11
    ENGINE_FAILURES = 12
    """Packets that an engine did not do, so that software did."""
    SAME_PAGES = 13
    """Of the data pages, those that are the parent's, and those stored as differences."""
    DELTA_PAGES = 14
    WRITTEN_BYTES = 15
    """Bytes written of packets, also of those that a second look writes again."""
    SAMPLED_PACKETS = 16
    """Packets that were looked at again, to see whether the image changed meanwhile."""


_BY_ENCODING: dict[int, Counter] = {
    Encoding.EMPTY: Counter.EMPTY_PACKETS,
    Encoding.RAW: Counter.RAW_PACKETS,
    Encoding.DEFLATE: Counter.DEFLATE_PACKETS,
    Encoding.ZSTD: Counter.ZSTD_PACKETS,
    Encoding.LZ4: Counter.LZ4_PACKETS,
}


def encoding_counter(encoding: int) -> Counter:
    """Return the counter of packets in an encoding."""
    return _BY_ENCODING[encoding]
