"""
Destinations of restored pages: a new file renamed when complete, or an existing one.

New files are written with pwrite, and only where pages are not zero. Measured on 512 MiB into a new
file: pwrite 0.34 s on tmpfs and 0.2 to 0.7 s on disk, stores into a mapping 0.8 to 1.1 s and 0.8 s;
and a full filesystem is an error to pwrite but SIGBUS to a store. hugetlbfs has no write(2): there
the space is allocated first, then stored to.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import NamedTuple, Protocol

import numpy as np

from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes
from snapmig.system.files import pwrite_all, write_error
from snapmig.system.libc import punch_hole, start_writeback

__all__ = ("Store", "TargetPlan", "open_store")

_ZEROS = np.zeros(1 << 20, np.uint8)


class TargetPlan(NamedTuple):
    """
    A file to receive pages.

    :param path: opens the file, also in another process
    :param shown: its display name
    :param needed: size of the complete file in bytes, reported when its filesystem is full
    :param in_place: the file has older contents, so zero pages must be written too
    :param huge_page_size: page size in bytes on hugetlbfs, else None
    :param to_disk: the file is synced at the end, so writing it back should begin early
    """

    path: str
    shown: str
    needed: int
    in_place: bool
    huge_page_size: int | None
    to_disk: bool = False


class Store(Protocol):
    """Puts bytes into a file in one process."""

    def write(self, offset: int, content: Bytes) -> None:
        """Put contiguous bytes at an offset."""

    def zero(self, offset: int, length: int) -> None:
        """Make a range zero."""

    def read(self, offset: int, content: Bytes) -> None:
        """Fill an array with the bytes from an offset on."""

    def append(self, content: Bytes) -> int:
        """Put contiguous bytes at the end, and return their offset; by default it can't grow."""
        raise TypeError(f"can't grow by {content.size} bytes")

    def start_writing_back(self) -> None:
        """Start writing new bytes of the file to the disk; by default do nothing."""
        return


class _Opened:
    # The file of a plan, open in this process.
    def __init__(self, plan: TargetPlan) -> None:
        self._plan = plan
        self._fd = os.open(plan.path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False  # with the worker's handler

    def read(self, offset: int, content: Bytes) -> None:
        done = 0
        while count := os.preadv(self._fd, [content.data[done:]], offset + done):
            done += count

    def start_writing_back(self) -> None:
        pass


class _FileStore(_Opened):
    """Writes with pwrite; zeros become holes if the filesystem can punch them."""

    def __init__(self, plan: TargetPlan) -> None:
        super().__init__(plan)
        self._can_punch = True
        self._end: int | None = None
        self._first: int | None = None  # of what was written since the last start of a writeback
        self._stop = 0

    def write(self, offset: int, content: Bytes) -> None:
        try:
            pwrite_all(self._fd, content, offset)
        except OSError as error:
            raise write_error(error, self._plan.shown, self._plan.needed) from error
        self._note(offset, content.size)

    def _note(self, offset: int, length: int) -> None:
        self._first = offset if self._first is None else min(self._first, offset)
        self._stop = max(self._stop, offset + length)

    def start_writing_back(self) -> None:
        if self._plan.to_disk and self._first is not None:
            start_writeback(self._fd, self._first, self._stop - self._first)
        self._first, self._stop = None, 0

    def append(self, content: Bytes) -> int:
        # The kernel finds the end and writes there in one step, whoever else does the same, and the
        # descriptor's own position tells where that was.
        if self._end is None:
            self._end = os.open(self._plan.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._end).atexit = False
        try:
            while os.write(self._end, content.data) < content.size:
                pass  # the filesystem is nearly full: the next attempt says so
        except OSError as error:
            raise write_error(error, self._plan.shown, self._plan.needed) from error
        offset = os.lseek(self._end, 0, os.SEEK_CUR) - content.size
        self._note(offset, content.size)
        return offset

    def zero(self, offset: int, length: int) -> None:
        if self._can_punch:
            try:
                self._can_punch = punch_hole(self._fd, offset, length)
            except OSError as error:
                raise write_error(error, self._plan.shown, self._plan.needed) from error
        if not self._can_punch:
            for at in range(0, length, _ZEROS.size):
                self.write(offset + at, _ZEROS[: length - at])


class _MappedStore(_Opened):
    """Stores into a mapping, for hugetlbfs without write(2)."""

    def __init__(self, plan: TargetPlan) -> None:
        super().__init__(plan)
        self._page = plan.huge_page_size or PAGE_SIZE
        size = os.fstat(self._fd).st_size
        try:
            self._array = np.frombuffer(mmap.mmap(self._fd, size), np.uint8)
        except OSError as error:  # the mapping reserves its huge pages
            raise write_error(error, plan.shown, plan.needed) from error

    def write(self, offset: int, content: Bytes) -> None:
        first = offset // self._page * self._page
        try:
            # Without this an exhausted pool of huge pages would raise SIGBUS.
            os.posix_fallocate(self._fd, first, offset + content.size - first)
        except OSError as error:
            raise write_error(error, self._plan.shown, self._plan.needed) from error
        self._array[offset : offset + content.size] = content.reshape(-1)

    def zero(self, offset: int, length: int) -> None:
        # The huge pages stay, because they belong to the guest.
        for at in range(0, length, _ZEROS.size):
            self.write(offset + at, _ZEROS[: length - at])

    def append(self, content: Bytes) -> int:
        message = f"a file on hugetlbfs can't grow by {content.size} bytes"
        raise SnapmigError(message, path=self._plan.shown)


def open_store(plan: TargetPlan) -> Store:
    """Open the file of a plan in this process, in the way its filesystem needs."""
    return _FileStore(plan) if plan.huge_page_size is None else _MappedStore(plan)
