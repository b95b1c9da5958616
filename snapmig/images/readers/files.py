"""
RAM as ranges of files: the usual case.

Files are mapped read-only, for repeated looks; what is looked at once is read. Holes are looked up
first, because reading one through a mapping of shared memory allocates it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from snapmig.images.source import ImageReader
from snapmig.pages import Bytes
from snapmig.system.holes import Extents

__all__ = ("MappedFile", "Part", "PartsReader")


class Part(NamedTuple):
    """
    A range of RAM offsets stored in one piece of a file.

    :param path: opens the file, also in another process
    :param file_offset: place in the file of the byte at RAM offset ``start``
    """

    path: str
    start: int
    stop: int
    file_offset: int = 0


class MappedFile:
    """
    A file's bytes as an array, and its holes.

    :ivar raw: the same bytes, for searching
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.fd).atexit = False  # with the worker's handler
        self.size = os.fstat(self.fd).st_size
        self.raw = mmap.mmap(self.fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ)
        self.array: Bytes = np.frombuffer(self.raw, np.uint8)
        self._extents = Extents(self.fd, self.size)

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the ranges between two file offsets that are not holes."""
        return self._extents.between(start, stop)

    def window(self, start: int, stop: int) -> Bytes:
        """Return a range, which ends with the file at the latest."""
        return self.array[start:stop]

    def read(self, start: int, stop: int) -> Bytes:
        """Return a copy of a range: it takes half the time of its page faults."""
        content: Bytes = np.empty(stop - start, np.uint8)
        with suppress(OSError):
            if os.preadv(self.fd, [content.data], start) == content.size:
                return content
        return self.array[start:stop]  # a disk that fails, or an image that shrank, as ever

    def release(self, start: int, stop: int) -> None:
        """
        Drop a range from this process's page tables; the file keeps it.

        Otherwise a worker would seem to hold the whole guest, and the kernel would kill it first
        when memory runs out.
        """
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        # Refused for a part of a huge page of 1 GiB, and for all huge pages before Linux 5.18.
        with suppress(OSError):
            self.raw.madvise(mmap.MADV_DONTNEED, first, stop - first)


class PartsReader(ImageReader):
    """
    Reads RAM in ranges of files.

    :param parts: in the order of RAM offsets; RAM outside all parts is zero
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = [part.start for part in parts]
        opened = {path: MappedFile(path) for path in {part.path for part in parts}}
        self._files = [opened[part.path] for part in parts]

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets that are not holes, each within one part."""
        for part, file in self._between(start, stop):
            shift = part.file_offset - part.start
            first, end = max(start, part.start), min(stop, part.stop)
            for found, after in file.extents(first + shift, end + shift):
                yield found - shift, after - shift

    def view(self, start: int, stop: int) -> Bytes:
        """Return the mapped bytes of a range inside one part."""
        file, shift = self._at(start)
        return file.array[start + shift : stop + shift]

    def read(self, start: int, stop: int) -> Bytes:
        """Return a copy of such a range, see :meth:`MappedFile.read`."""
        file, shift = self._at(start)
        return file.read(start + shift, stop + shift)

    def release(self, start: int, stop: int) -> None:
        """Note that a range is no longer needed."""
        for part, file in self._between(start, stop):
            shift = part.file_offset - part.start
            file.release(max(start, part.start) + shift, min(stop, part.stop) + shift)

    def _at(self, start: int) -> tuple[MappedFile, int]:
        number = bisect_right(self._starts, start) - 1
        return self._files[number], self._parts[number].file_offset - self._parts[number].start

    def _between(self, start: int, stop: int) -> Iterator[tuple[Part, MappedFile]]:
        number = max(0, bisect_right(self._starts, start) - 1)
        while number < len(self._parts) and self._parts[number].start < stop:
            if self._parts[number].stop > start:
                yield self._parts[number], self._files[number]
            number += 1
