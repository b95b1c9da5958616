"""
Raw images: files whose bytes are the guest's RAM, one file a RAM block.

A regular file, a file in /dev/shm, a memfd or deleted file as ``/proc/PID/fd/N``, or a hugetlbfs
file. Workers map it; holes are asked for first, since reading one through a mapping of shared
memory allocates it.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from snapmig.errors import ImageChangedError, SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.pages import Bytes
from snapmig.system.files import descriptor_path
from snapmig.system.holes import data_extents, next_data
from snapmig.system.libc import huge_page_size

__all__ = ("RawImage", "RawReader")

DEFAULT_BLOCK_NAME = "ram"


@dataclass(frozen=True, slots=True)
class _Part:
    # One RAM block's file: how to open it anew, and which RAM offsets it holds.
    path: str
    start: int
    stop: int


class RawReader:
    """Reads raw images through read-only mappings."""

    def __init__(self, parts: tuple[_Part, ...]) -> None:
        self._parts = parts
        self._fds = [os.open(part.path, os.O_RDONLY | os.O_CLOEXEC) for part in parts]
        self._maps = [
            mmap.mmap(fd, part.stop - part.start, mmap.MAP_SHARED, mmap.PROT_READ)
            for fd, part in zip(self._fds, parts, strict=True)
        ]
        self._arrays = [np.frombuffer(mapping, np.uint8) for mapping in self._maps]
        # The extent found last. Without it each packet would ask for the next hole, and the answer
        # costs a walk over all pages up to it: the square of a dense image's size in all.
        self._known = [(0, 0)] * len(parts)

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets of one block that are not holes."""
        number = self._part_at(start)
        base = self._parts[number].start
        start, stop = start - base, stop - base
        while start < stop:
            first, end = self._known[number]
            if not first <= start < end:
                size = self._parts[number].stop - base
                found = next(data_extents(self._fds[number], start, size), (size, size))
                first, end = self._known[number] = found
            if first < stop:
                yield base + max(first, start), base + min(end, stop)
            start = max(first, end) if first < stop else stop

    def view(self, start: int, stop: int) -> Bytes:
        """Return the mapped bytes between two RAM offsets."""
        number = self._part_at(start)
        base = self._parts[number].start
        return self._arrays[number][start - base : stop - base]

    def release(self, start: int, stop: int) -> None:
        """
        Drop a range from this process's page tables; the image itself keeps it.

        A worker would otherwise seem to hold the whole guest, and be the first one that the
        kernel kills when memory runs out.
        """
        number = self._part_at(start)
        base = self._parts[number].start
        first = (start - base) // mmap.PAGESIZE * mmap.PAGESIZE
        # Refused for a part of a huge page of 1 GiB, and for all huge pages before Linux 5.18.
        with suppress(OSError):
            self._maps[number].madvise(mmap.MADV_DONTNEED, first, stop - base - first)

    def _part_at(self, ram_offset: int) -> int:
        return next(n for n, part in enumerate(self._parts) if ram_offset < part.stop)


class RawImage:
    """
    One or more raw files as the RAM blocks of a guest.

    :param files: the blocks, each with its file
    :raises SnapmigError: not a regular file, empty, or of another size than its block
    """

    format = "raw"

    def __init__(self, files: Sequence[tuple[RamBlock, str]]) -> None:
        self.shown = files[0][1]
        self._names = [path for _, path in files]
        self._fds: list[int] = []
        try:
            self._open_all(files)
        except BaseException:
            self.close()
            raise

    def _open_all(self, files: Sequence[tuple[RamBlock, str]]) -> None:
        blocks = []
        for block, path in files:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._fds.append(fd)
            facts = os.fstat(fd)
            _check_file(path, facts)
            if facts.st_size != block.size:
                message = f"file has {facts.st_size} bytes, RAM block {block.name!r} {block.size}"
                raise SnapmigError(message, path=path)
            blocks.append(block)
        self.blocks = tuple(blocks)
        self._facts = [os.fstat(fd) for fd in self._fds]
        starts = Geometry(self.blocks, PAGE_SIZE)
        self._parts = tuple(
            _Part(descriptor_path(fd), starts.block_start(n), starts.block_start(n) + block.size)
            for n, (fd, block) in enumerate(zip(self._fds, blocks, strict=True))
        )

    @classmethod
    def open(cls, path: str | Path) -> RawImage:
        """Open a single file as a guest's only RAM block, named ``ram``."""
        shown = os.fspath(path)
        facts = os.stat(shown)
        _check_file(shown, facts)
        page_size = huge_page_size(shown) or PAGE_SIZE
        block = RamBlock(DEFAULT_BLOCK_NAME, facts.st_size, page_size=page_size)
        return cls([(block, shown)])

    def opener(self) -> Callable[[], RawReader]:
        """Return a picklable function that opens a reader in any process."""
        return partial(RawReader, self._parts)

    def next_data(self, start: int) -> int:
        """Return the first RAM offset from ``start`` on that is not in a hole."""
        for fd, part in zip(self._fds, self._parts, strict=True):
            if start < part.stop:
                size = part.stop - part.start
                found = next_data(fd, max(0, start - part.start), size)
                if found < size:
                    return part.start + found
                start = part.stop
        return start

    def check_unchanged(self) -> None:
        """
        Compare sizes and times of change with those at the start.

        :raises ImageChangedError: something wrote to the image while it was read
        """
        for fd, before, path in zip(self._fds, self._facts, self._names, strict=True):
            after = os.fstat(fd)
            if after.st_size != before.st_size:
                message = f"image had {before.st_size} bytes at the start, now {after.st_size}"
                raise ImageChangedError(message, path=path)
            if after.st_mtime_ns != before.st_mtime_ns:
                message = "image was written to while it was read, pause the guest first"
                raise ImageChangedError(message, path=path)

    def close(self) -> None:
        """Close the files."""
        while self._fds:
            os.close(self._fds.pop())


def _check_file(path: str, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise SnapmigError("image is not a regular file", path=path)
    if facts.st_size == 0:
        raise SnapmigError("image is empty, expected a guest's RAM", path=path)
