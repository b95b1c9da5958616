"""RAM with its pages anywhere in a file, found through a table in shared memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.source import ImageReader
from snapmig.pages import Bytes
from snapmig.system.files import descriptor_path
from snapmig.system.holes import data_extents

__all__ = ("MAX_PAGES", "NO_PAGE", "PageBytes", "PageTable", "PageTableReader", "Searchable")

NO_PAGE = 0
"""
The entry of a page missing from the file. No page is at the start of a file, and a table of zeros
takes no memory.
"""

MAX_PAGES = 1 << 34
"""Largest number of pages in a table: 64 TiB of RAM."""


class Searchable(Protocol):
    """Bytes searchable without a copy: bytes, or a mapping."""

    def find(self, wanted: bytes, start: int, stop: int, /) -> int:
        """Return the first offset of a byte string, -1 if there is none."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Return a copy of a range."""

    def __len__(self) -> int:
        """Return the number of bytes."""


class PageBytes(Protocol):
    """
    The bytes that a table's offsets are of: a whole file, or what a part of its clusters holds.

    :ivar size: their number
    :ivar raw: the same bytes, for searching
    """

    size: int

    @property
    def raw(self) -> Searchable:
        """The same bytes, for searching."""

    def window(self, start: int, stop: int) -> Bytes:
        """Return a range, which ends with the last byte at the latest."""

    def release(self, start: int, stop: int) -> None:
        """Note that a range is no longer needed."""


class PageTable:
    """
    File offsets of all pages, 8 bytes each, in a memfd mapped by workers too.

    :raises SnapmigError: more pages than any guest has
    """

    def __init__(self, pages: int) -> None:
        if pages > MAX_PAGES:
            raise SnapmigError(f"{pages} pages of RAM, expected at most {MAX_PAGES}")
        self._fd = os.memfd_create("snapmig-pages", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, pages * 8)
        self.pages = pages
        try:
            self.entries = np.frombuffer(mmap.mmap(self._fd, pages * 8), np.int64)
        except OSError as error:
            self.close()
            message = f"no memory for a table of {pages} pages of RAM: {error.strerror}"
            raise SnapmigError(message) from error

    def next_page(self, page: int) -> int | None:
        """Return the first page from ``page`` on present in the file, or None."""
        for first, end in data_extents(self._fd, page * 8, self.pages * 8):
            found = np.flatnonzero(self.entries[first // 8 : end // 8])
            if found.size:
                return first // 8 + int(found[0])
        return None

    def only(self, ranges: Sequence[tuple[int, int]]) -> PageTable:
        """Return a table of only some ranges of pages, (first, count) each, without gaps."""
        kept = PageTable(sum(count for _, count in ranges))
        left = 0
        for start, count in ranges:
            for first, end in data_extents(self._fd, start * 8, (start + count) * 8):
                at = first // 8 - start + left
                kept.entries[at : at + (end - first) // 8] = self.entries[first // 8 : end // 8]
            left += count
        return kept

    @property
    def path(self) -> str:
        """A path for other processes to open it."""
        return descriptor_path(self._fd)

    def close(self) -> None:
        """Close the memfd; entries still referred to stay mapped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PageTableReader(ImageReader):
    """
    Reads pages through a table.

    :param open_bytes: opens what holds the pages
    :param table_path: the table's memfd
    :param stride: bytes from one page's contents to the next one's, for pages stored in sequence
    """

    def __init__(self, open_bytes: Callable[[], PageBytes], table_path: str, stride: int) -> None:
        self._file = open_bytes()
        self._stride = stride
        fd = os.open(table_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            table = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self._entries: npt.NDArray[np.int64] = np.frombuffer(table, np.int64)

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets with their pages in sequence in the file."""
        first, after = start // PAGE_SIZE, -(-stop // PAGE_SIZE)
        entries = self._entries[first:after]
        there = entries != NO_PAGE
        # A range ends before a page that is missing, or not one stride further, and after one that
        # is missing: a page one stride from the file's start would seem to continue it.
        breaks = np.flatnonzero((np.diff(entries) != self._stride) | ~there[:-1]) + 1
        edges = [0, *breaks.tolist(), len(entries)]
        for begin, end in pairwise(edges):
            if there[begin]:
                yield (first + begin) * PAGE_SIZE, (first + end) * PAGE_SIZE

    def view(self, start: int, stop: int) -> Bytes:
        """Return a copy of the pages of one extent."""
        count = (stop - start) // PAGE_SIZE
        offset = int(self._entries[start // PAGE_SIZE])
        held = self._file.window(offset, offset + (count - 1) * self._stride + PAGE_SIZE)
        pages = np.lib.stride_tricks.as_strided(
            held, (count, PAGE_SIZE), (self._stride, 1), writeable=False
        )
        return pages.reshape(-1)

    def release(self, start: int, stop: int) -> None:
        """Drop the bytes behind a range of RAM from this process's page tables."""
        entries = self._entries[start // PAGE_SIZE : -(-stop // PAGE_SIZE)]
        there = entries[entries != NO_PAGE]
        if there.size:
            self._file.release(int(there.min()), int(there.max()) + PAGE_SIZE)
