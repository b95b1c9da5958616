"""
Find the holes of a file without touching its pages; see lseek(2), SEEK_DATA and SEEK_HOLE.

Reading a hole of a tmpfs file or memfd through a mapping allocates it, so readers check here first.
A filesystem without support for holes (hugetlbfs) reports everything as data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

__all__ = ("Extents", "data_extents", "next_data")

_KNOWS_NO_HOLES = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def next_data(fd: int, offset: int, stop: int) -> int:
    """
    Return the first offset from ``offset`` on that may hold data, or ``stop`` if there is none.

    Moves the descriptor's position: give each process an open file description of its own.
    """
    if offset >= stop:
        return stop
    try:
        return min(os.lseek(fd, offset, os.SEEK_DATA), stop)
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data from here to the end of the file
            return stop
        if error.errno in _KNOWS_NO_HOLES:
            return offset
        raise


def data_extents(fd: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges (first byte, byte after the last) between two offsets that may hold data."""
    while (start := next_data(fd, start, stop)) < stop:
        end = _next_hole(fd, start, stop)
        yield start, end
        start = end


class Extents:
    """
    The ranges of an open file that may hold data, for repeated queries.

    The last range found is remembered. Otherwise each query would search for the next hole, at the
    cost of a walk over all pages before it: quadratic in the size of a dense file.

    :param size: of the file, in bytes
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._known = (0, 0)

    def between(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two offsets that are not holes."""
        while start < stop:
            first, end = self._known
            if not first <= start < end:
                first = end = next_data(self._fd, start, self._size)
                if first < self._size:
                    end = _next_hole(self._fd, first, self._size)
                self._known = first, end
            if first >= stop:
                return
            yield max(first, start), min(end, stop)
            start = end


def _next_hole(fd: int, offset: int, stop: int) -> int:
    try:
        return min(os.lseek(fd, offset, os.SEEK_HOLE), stop)
    except OSError as error:
        # ENXIO: the file shrank below this offset; a read there will report it.
        if error.errno in (*_KNOWS_NO_HOLES, errno.ENXIO):
            return stop
        raise
