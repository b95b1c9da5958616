"""Pages of a dump, decompressed in a worker as they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError
from snapmig.images.kdump.bitmap import FrameBits
from snapmig.images.kdump.contents import SharedDump, open_shared
from snapmig.images.source import ImageReader
from snapmig.page_codecs import Decompress, decompressor
from snapmig.pages import Bytes, runs

__all__ = ("FrameRange", "PageReader", "ReaderPlan", "entry_type")

_CODECS = {1: "zlib", 2: "lzo", 4: "snappy", 0x20: "zstd"}


class FrameRange(NamedTuple):
    """A range of RAM: its RAM offsets, and its first page frame."""

    start: int
    stop: int
    frame: int


class ReaderPlan(NamedTuple):
    """
    Parameters of a reader, picklable.

    :param ranges: in the order of RAM offsets
    :param bitmap_path: opens the bitmap of pages in the file
    :param counts: as of :class:`~snapmig.images.kdump.bitmap.FrameBitmap`
    :param block_size: bytes of a page
    :param table_offset: place of the table of pages
    """

    dump: SharedDump
    ranges: Sequence[FrameRange]
    bitmap_path: str
    counts: npt.NDArray[np.int64]
    block_size: int
    table_offset: int
    order: str


def entry_type(order: str) -> np.dtype[Any]:
    """Return an entry of the table of pages: its place, length and compression."""
    fields = (("offset", "i8"), ("size", "u4"), ("flags", "u4"), ("page_flags", "u8"))
    return np.dtype([(name, order + kind) for name, kind in fields])


class _Entry(NamedTuple):
    offset: int
    size: int
    flags: int


class PageReader(ImageReader):
    """Reads RAM from a dump."""

    def __init__(self, plan: ReaderPlan) -> None:
        self._plan = plan
        self._dump = open_shared(plan.dump)
        self._bits = FrameBits(plan.bitmap_path, plan.counts)
        self._starts = [each.start for each in plan.ranges]
        self._type = entry_type(plan.order)
        self._codecs: dict[int, Decompress] = {}
        self._zero: _Entry | None = None

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets of one block with their pages in the file."""
        size = self._plan.block_size
        first = self._frame(start)
        for run, count in runs(self._bits.between(first, first + (stop - start) // size)):
            yield start + run * size, start + (run + count) * size

    def view(self, start: int, stop: int) -> Bytes:
        """Return the pages of a range inside one extent."""
        size = self._plan.block_size
        first, count = self._frame(start), (stop - start) // size
        entries = self._entries(first, count)
        pages = np.zeros((count, size), np.uint8)
        # One read for all of them where they lie together; a page of zeros is there only once.
        wanted = [entry for entry in entries if entry != self._zero]
        low = min((entry.offset for entry in wanted), default=0)
        high = max((entry.offset + entry.size for entry in wanted), default=0)
        together = high - low <= 2 * pages.size
        stored = self._dump.read(low, high - low) if together else b""
        for number, entry in enumerate(entries):
            if entry == self._zero:
                continue
            at = entry.offset - low
            own = stored[at : at + entry.size] if together else self._read(entry)
            pages[number] = np.frombuffer(self._decoded(own, entry, first + number), np.uint8)
            if self._zero is None and not entry.flags and not pages[number].any():
                self._zero = entry
        return pages.reshape(-1)

    def release(self, start: int, stop: int) -> None:
        """Do nothing: the file is not mapped."""

    def _frame(self, offset: int) -> int:
        own = self._plan.ranges[bisect_right(self._starts, offset) - 1]
        return own.frame + (offset - own.start) // self._plan.block_size

    def _entries(self, frame: int, count: int) -> list[_Entry]:
        width = self._type.itemsize
        place = self._plan.table_offset + self._bits.number(frame) * width
        table = np.frombuffer(self._dump.read(place, count * width), self._type)
        columns = (table[name].tolist() for name in ("offset", "size", "flags"))
        entries = [_Entry(*fields) for fields in zip(*columns, strict=True)]
        for number, entry in enumerate(entries):
            if not 0 < entry.size <= self._plan.block_size:
                message = f"{entry.size} bytes, expected 1 to {self._plan.block_size}"
                raise self._error(frame + number, message, entry)
            if not 0 <= entry.offset <= self._dump.size - entry.size:
                message = f"{entry.size} bytes are not all before {self._dump.size:#x}, the end"
                raise self._error(frame + number, message, entry)
        return entries

    def _read(self, entry: _Entry) -> bytes:
        return self._dump.read(entry.offset, entry.size)

    def _decoded(self, stored: bytes, entry: _Entry, frame: int) -> bytes:
        size = self._plan.block_size
        if not entry.flags:
            if entry.size != size:
                message = f"{entry.size} bytes as they are, expected {size}"
                raise self._error(frame, message, entry)
            return stored
        if entry.flags not in self._codecs:
            if entry.flags not in _CODECS:
                raise self._error(frame, f"compression is {entry.flags:#x}, which is none", entry)
            self._codecs[entry.flags] = decompressor(_CODECS[entry.flags])
        try:
            return self._codecs[entry.flags](stored, size)
        except ValueError as error:
            message = f"{_CODECS[entry.flags]} does not give {size} bytes: {error}"
            raise self._error(frame, message, entry) from error

    def _error(self, frame: int, words: str, entry: _Entry) -> SnapmigError:
        message = f"page at address {frame * self._plan.block_size:#x}: {words}"
        return SnapmigError(message, path=self._dump.shown, offset=max(0, entry.offset))
