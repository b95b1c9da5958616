"""
Staged pages: those of packets received in part, or again, until they are merged into their slots.

One process writes a table. While nobody writes it, all workers read it. A page may be in several
tables, or several times in one: of the latest round, its last entry counts.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.pages import Bytes
from snapmig.system.files import descriptor_path

__all__ = (
    "MOST_ROUNDS",
    "Numbers",
    "PacketNumbers",
    "StagedPages",
    "StagedReader",
    "StagingTables",
    "Waiting",
)

_ALL_ENTRIES = 1 << 16
"""Entries of all tables together: 256 MiB of pages."""
_LARGEST = 1 << 14
_SMALLEST = 1 << 11
"""Entries of a table: room for several full packets in any case."""

MOST_ROUNDS = 1 << 12
"""Rounds whose pages may wait side by side."""

_ROUND = 1 << 50
_ZERO = 1 << 62
"""An entry is a page number below ``_ROUND``, its round above, and this bit for a zero page."""

_ENTRY_SIZE = PAGE_SIZE + 8
"""Bytes in a table: a page, and its number. One entry more has the count of them."""

Numbers = npt.NDArray[np.int64]


class StagingTables:
    """
    Empty tables for other processes, there until closed; a context manager.

    :param packets: the most packets that the RAM may have
    :ivar paths: by which they are opened
    :ivar waiting_path: of :class:`Waiting`
    """

    def __init__(self, count: int, packets: int) -> None:
        entries = max(_SMALLEST, min(_LARGEST, _ALL_ENTRIES // count))
        self._files = [os.memfd_create("snapmig-staged", os.MFD_CLOEXEC) for _ in range(count)]
        for fd in self._files:
            os.ftruncate(fd, (entries + 1) * _ENTRY_SIZE)
        self.paths = [descriptor_path(fd) for fd in self._files]
        self._files.append(os.memfd_create("snapmig-waiting", os.MFD_CLOEXEC))
        os.ftruncate(self._files[-1], packets + 1)
        self.waiting_path = descriptor_path(self._files[-1])

    def __enter__(self) -> StagingTables:
        return self

    def __exit__(self, *_exc: object) -> None:
        for fd in self._files:
            os.close(fd)


class Waiting:
    """
    Marks, to be read and set by any process.

    :param path: empty for none
    :ivar marks: a byte for each packet, other than 0 if pages of it wait
    """

    def __init__(self, path: str) -> None:
        self.marks: Bytes = np.empty(0, np.uint8)
        self._last = self.marks
        if path:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                mapped = np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.uint8)
            finally:
                os.close(fd)
            self.marks, self._last = mapped[:-1], mapped[-1:]

    @property
    def hurry(self) -> bool:
        """True if the guest stands still until everything has come."""
        return bool(self._last[0])

    @hurry.setter
    def hurry(self, value: bool) -> None:
        self._last[0] = value


class _Table:
    # Pages first, where they are aligned, then their numbers, then the count.
    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            mapped = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.capacity = size // _ENTRY_SIZE - 1
        self._pages = np.frombuffer(mapped, np.uint8, self.capacity * PAGE_SIZE)
        self._pages = self._pages.reshape(-1, PAGE_SIZE)
        numbers = np.frombuffer(mapped, np.int64, self.capacity + 1, self._pages.nbytes)
        self._entries, self._count = numbers[:-1], numbers[-1:]


class StagedPages(_Table):
    """
    A table, for the process that writes it.

    :ivar round: of the pages added now
    """

    round = 0

    @property
    def count(self) -> int:
        """Number of entries."""
        return int(self._count[0])

    @property
    def room(self) -> int:
        """Number of entries that can be added."""
        return self.capacity - self.count

    def add(self, numbers: Numbers, pages: Bytes) -> None:
        """Add pages, as ``(n, 4096)``, by their numbers in RAM offsets; there must be room."""
        start = self.count
        stop = start + len(numbers)
        self._entries[start:stop] = numbers + self._bits
        self._pages[start:stop] = pages
        self._count[0] = stop

    def add_zeros(self, numbers: Numbers) -> None:
        """Add zero pages."""
        start = self.count
        stop = start + len(numbers)
        self._entries[start:stop] = numbers + (self._bits | _ZERO)
        self._count[0] = stop

    @property
    def _bits(self) -> int:
        return self.round % MOST_ROUNDS * _ROUND

    def page_numbers(self) -> Numbers:
        """Return the number of each page."""
        return self._entries[: self.count] % _ROUND

    def clear(self) -> None:
        """Remove all entries."""
        self._count[0] = 0


class StagedReader(_Table):
    """A table, for a process that reads it while it does not change."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        entries = self._entries[: int(self._count[0])]
        numbers = entries % _ROUND
        self._order = numbers.argsort(kind="stable")
        self._sorted = numbers[self._order]

    def has(self, first: int, count: int) -> bool:
        """Return whether any of consecutive pages is in the table."""
        start, stop = self._sorted.searchsorted([first, first + count])
        return bool(start < stop)

    def numbers(self, first: int, count: int) -> Numbers:
        """Return the numbers of those among consecutive pages that are in the table."""
        return self._entries[self._rows(first, count)] % _ROUND

    def rounds(self, first: int, count: int) -> list[int]:
        """Return the rounds of those among consecutive pages that are in the table."""
        entries = self._entries[self._rows(first, count)]
        return list(np.unique(entries % _ZERO // _ROUND).tolist())

    def overlay(self, first: int, pages: Bytes, round: int) -> None:  # noqa: A002 - QEMU's word
        """
        Put the pages of one round among consecutive pages to their places, each page's last one.

        :param first: number of the first page
        :param pages: ``(n, 4096)``
        """
        rows = self._rows(first, len(pages))
        rows = rows[self._entries[rows] % _ZERO // _ROUND == round]
        numbers = self._entries[rows] % _ROUND
        last = np.append(numbers[1:] != numbers[:-1], True)[: len(rows)]
        rows, places = rows[last], numbers[last] - first
        zero = self._entries[rows] >= _ZERO
        pages[places[~zero]] = self._pages[rows[~zero]]
        pages[places[zero]] = 0

    def _rows(self, first: int, count: int) -> Numbers:
        start, stop = self._sorted.searchsorted([first, first + count])
        return self._order[start:stop]


class PacketNumbers:
    """The packet of each page of RAM, for many pages at once."""

    def __init__(self, geometry: Geometry) -> None:
        blocks = range(len(geometry.blocks))
        self._pages = geometry.packet_pages
        self._starts = np.array([geometry.block_start(each) // PAGE_SIZE for each in blocks])
        self._first = np.array([geometry.block_packets(each).start for each in blocks])

    def of(self, numbers: Numbers) -> Numbers:
        """Return the packet's number for each page number in RAM offsets."""
        block = self._starts.searchsorted(numbers, "right") - 1
        inside = (numbers - self._starts[block]) // self._pages
        return np.asarray(self._first[block] + inside, np.int64)
