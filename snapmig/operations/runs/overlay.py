"""
Pages written over a snapshot, in a sparse file: a header, a bitmap, and each page at its own place.

A page is written before its bit, so that a killed server leaves whole pages. After a loss of power
only what was synced before is sure.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from snapmig.checksums import crc32
from snapmig.errors import CorruptSnapshotError, UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.runs.page_map import PageMap
from snapmig.operations.runs.random_access import RandomAccess
from snapmig.pages import Bytes
from snapmig.system.files import pread_all, pwrite_all

__all__ = ("OverlayMap", "OverlayMemory")

_MAGIC = b"snapmig overlay\0"
_HEADER = struct.Struct("<16sI32sQ")
"""Magic, version, root of the snapshot, bytes of RAM; a CRC-32 of them follows."""
_VERSION = 1
_SEARCHED = 1 << 18
"""Pages whose bits are looked through at once."""


class OverlayMemory:
    """
    A snapshot's RAM with the pages that were written since, for any number of threads.

    :param path: the overlay, made if there is none
    :raises UsageError: it is of another snapshot, or in use
    :raises CorruptSnapshotError: its header is damaged
    """

    def __init__(self, base: RandomAccess, path: Path) -> None:
        self.base = base
        self.file = base.file
        self.geometry = base.geometry
        self.shown = str(path)
        self._pages = -(-self.geometry.ram_size // PAGE_SIZE)
        bitmap_size = -(-self._pages // 8)
        self._start = PAGE_SIZE + -(-bitmap_size // PAGE_SIZE) * PAGE_SIZE
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._lock = threading.Lock()
        try:
            self._claim()
            raw = pread_all(self._fd, bitmap_size, PAGE_SIZE)
        except BaseException:
            os.close(self._fd)
            raise
        self._bits = np.frombuffer(bytearray(raw.ljust(bitmap_size, b"\0")), np.uint8)

    def _claim(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("overlay is in use by another mount", path=self.shown) from None
        root, size = self.file.superblock.root, self.geometry.ram_size
        header = _HEADER.pack(_MAGIC, _VERSION, root, size)
        header += crc32(header).to_bytes(4, "little")
        found = pread_all(self._fd, len(header), 0)
        if not found:
            os.ftruncate(self._fd, self._start + self._pages * PAGE_SIZE)
            pwrite_all(self._fd, header, 0)
        elif not found.startswith(_MAGIC):
            raise UsageError("is not an overlay, and is not written over", path=self.shown)
        elif crc32(found[:-4]).to_bytes(4, "little") != found[-4:]:
            raise CorruptSnapshotError("header of the overlay is damaged", path=self.shown)
        elif found != header:
            raise UsageError("is an overlay of another snapshot", path=self.shown)

    @property
    def modified_ns(self) -> int:
        """Time of the last write."""
        return os.fstat(self._fd).st_mtime_ns

    def has(self, page: int) -> bool:
        """Return True for a page that was written."""
        return bool(self._bits[page >> 3] >> (page & 7) & 1)

    def pieces(self, start: int, stop: int) -> Iterator[Bytes]:
        """Yield the bytes between two RAM offsets in pieces."""
        while start < stop:
            written = self.has(start // PAGE_SIZE)
            end = min(stop, (start // PAGE_SIZE + 1) * PAGE_SIZE)
            while end < stop and self.has(end // PAGE_SIZE) == written:
                end = min(stop, end + PAGE_SIZE)
            if written:
                raw = pread_all(self._fd, end - start, self._start + start)
                yield np.frombuffer(raw, np.uint8)
            else:
                yield from self.base.pieces(start, end)
            start = end

    def write(self, start: int, data: bytes) -> None:
        """
        Write bytes at a RAM offset.

        :raises OSError: the filesystem is full
        """
        stop = start + len(data)
        first, last = start // PAGE_SIZE, (stop - 1) // PAGE_SIZE
        with self._lock:
            low = first * PAGE_SIZE
            high = min((last + 1) * PAGE_SIZE, self.geometry.ram_size)
            # What is left of the first and the last page is as it was before.
            before = self.read(low, start)
            content = b"".join((before, data, self.read(stop, high)))
            pwrite_all(self._fd, content, self._start + low)
            for page in range(first, last + 1):
                self._bits[page >> 3] |= 1 << (page & 7)
            pwrite_all(self._fd, self._bits[first >> 3 : (last >> 3) + 1], PAGE_SIZE + (first >> 3))

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes between two RAM offsets."""
        return b"".join(piece.data for piece in self.pieces(start, stop))

    def sync(self) -> None:
        """Wait until everything written is on stable storage."""
        os.fdatasync(self._fd)

    def next_written(self, start: int, stop: int) -> int:
        """Return the RAM offset of the first written page in a range, else its end."""
        first, end = start // PAGE_SIZE, -(-stop // PAGE_SIZE)
        for at in range(first & ~7, end, _SEARCHED):
            bits = np.unpackbits(self._bits[at >> 3 : (at + _SEARCHED) >> 3], bitorder="little")
            hits = np.flatnonzero(bits[max(0, first - at) : end - at])
            if hits.size:
                return min(stop, (max(first, at) + int(hits[0])) * PAGE_SIZE)
        return stop

    def written(self) -> int:
        """Return the number of written pages."""
        return int(np.bitwise_count(self._bits).sum())

    def close(self) -> None:
        """Sync and close the overlay; the snapshot stays the caller's."""
        self.sync()
        os.close(self._fd)


class OverlayMap(PageMap):
    """Places of zero pages; a written page counts as other than zero."""

    def __init__(self, memory: OverlayMemory) -> None:
        super().__init__(memory.file)
        self._memory = memory

    def in_use(self, packets: range) -> int:
        """Return the bytes of pages other than zero, written ones twice at worst."""
        return super().in_use(packets) + self._memory.written() * PAGE_SIZE

    def find(self, start: int, stop: int, *, data: bool) -> int:
        """Return the first RAM offset in a range with, or without, data; its end if none."""
        if data:
            first = super().find(start, stop, data=True)
            return min(first, max(start, self._memory.next_written(start, first)))
        while start < stop:
            start = super().find(start, stop, data=False)
            if start == stop or not self._memory.has(start // PAGE_SIZE):
                break
            start = min((start // PAGE_SIZE + 1) * PAGE_SIZE, stop)
        return start
