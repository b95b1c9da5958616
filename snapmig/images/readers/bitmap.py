"""RAM with a bitmap of valid pages: the bytes of all others may be stale."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from snapmig.errors import ImageChangedError
from snapmig.images.readers.files import Part, PartsReader
from snapmig.pages import Mask, runs
from snapmig.system.files import pread_all

__all__ = ("BitmapReader", "Bits", "PageBitmap")

_SCAN_BYTES = 1 << 13


class PageBitmap(NamedTuple):
    """
    Place of a part's bitmap: one bit per page, the first page in the lowest bit.

    :param path: opens the file, also in another process
    :param offset: of the bitmap in the file
    :param page_size: bytes of RAM per bit
    """

    path: str
    offset: int
    page_size: int


class BitmapReader(PartsReader):
    """
    Reads parts through their bitmaps.

    :param parts: in the order of RAM offsets
    :param bitmaps: one for each part
    """

    def __init__(self, parts: Sequence[Part], bitmaps: Sequence[PageBitmap]) -> None:
        super().__init__(parts)
        self._bitmaps = bitmaps
        self._bits = [Bits(b, p) for b, p in zip(bitmaps, parts, strict=True)]

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets of one part with their bits set."""
        number = bisect_right(self._starts, start) - 1
        base, size = self._parts[number].start, self._bitmaps[number].page_size
        first, after = (start - base) // size, -(-(stop - base) // size)
        for run, count in runs(self._bits[number].between(first, after)):
            run_start = base + (first + run) * size
            yield from super().extents(max(start, run_start), min(stop, run_start + count * size))


class Bits:
    """
    A part's bitmap, read and not mapped: the parent uses it too, and must survive a truncated file.

    :raises OSError: the file can't be opened
    """

    def __init__(self, bitmap: PageBitmap, part: Part) -> None:
        self._fd = os.open(bitmap.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False  # with the worker's handler
        self._offset = bitmap.offset
        self._size = -(-(part.stop - part.start) // bitmap.page_size // 8)

    def between(self, first: int, after: int) -> Mask:
        """Return the bits of a range of pages, as a mask."""
        low = first // 8
        found = self._read(low, -(-after // 8) - low)
        bits = np.unpackbits(np.frombuffer(found, np.uint8), bitorder="little")
        return bits[first - low * 8 : after - low * 8].view(np.bool_)

    def next_set(self, page: int) -> int | None:
        """Return the first page from ``page`` on with its bit set, or None."""
        for at in range(page // 8, self._size, _SCAN_BYTES):
            length = min(_SCAN_BYTES, self._size - at)
            first = max(page, at * 8)
            found = self.between(first, (at + length) * 8)
            if found.any():
                return first + int(found.argmax())
        return None

    def _read(self, at: int, length: int) -> bytes:
        found = pread_all(self._fd, length, self._offset + at)
        if len(found) < length:
            raise ImageChangedError("image ends inside the bitmap of its pages: it was cut")
        return found
