"""RAM of which only the pages count whose bit is set: the bytes of the others may be stale."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from snapmig.images.readers.files import Part, PartsReader
from snapmig.pages import Bytes, Mask, runs

__all__ = ("BitmapReader", "PageBitmap", "load_bitmap")

_SCAN_BYTES = 1 << 16


class PageBitmap(NamedTuple):
    """
    Where a file has the bitmap of a part: one bit a page, the first page in the lowest bit.

    :param path: opens the file, also in another process
    :param offset: of the bitmap in the file
    :param page_size: bytes of RAM for a bit
    """

    path: str
    offset: int
    page_size: int


class BitmapReader:
    """
    Reads parts through their bitmaps.

    :param parts: in the order of RAM offsets
    :param bitmaps: one for each part
    """

    def __init__(self, parts: Sequence[Part], bitmaps: Sequence[PageBitmap]) -> None:
        self._reader = PartsReader(parts)
        self._parts = parts
        self._bitmaps = bitmaps
        self._starts = [part.start for part in parts]
        self._bits = [load_bitmap(b, p) for b, p in zip(bitmaps, parts, strict=True)]

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets of one part whose bits are set."""
        number = bisect_right(self._starts, start) - 1
        base, size = self._parts[number].start, self._bitmaps[number].page_size
        first, after = (start - base) // size, -(-(stop - base) // size)
        for run, count in runs(_bits(self._bits[number], first, after)):
            run_start = base + (first + run) * size
            yield from self._reader.extents(
                max(start, run_start), min(stop, run_start + count * size)
            )

    def view(self, start: int, stop: int) -> Bytes:
        """Return the mapped bytes of a range inside one part."""
        return self._reader.view(start, stop)

    def expect(self, start: int, stop: int) -> None:
        """Do nothing: the kernel reads ahead."""

    def release(self, start: int, stop: int) -> None:
        """Say that a range is not needed any more."""
        self._reader.release(start, stop)


def load_bitmap(bitmap: PageBitmap, part: Part) -> Bytes:
    """Map a part's bitmap."""
    size = -(-(part.stop - part.start) // bitmap.page_size // 8)
    mapped = np.memmap(bitmap.path, np.uint8, "r", bitmap.offset, (size,))
    return mapped.view(np.ndarray)


def next_set(bits: Bytes, page: int) -> int | None:
    """Return the first page from ``page`` on whose bit is set, or None."""
    first = page // 8
    if first < len(bits) and (rest := int(bits[first]) >> page % 8):
        return page + (rest & -rest).bit_length() - 1
    for at in range(first + 1, len(bits), _SCAN_BYTES):
        found = np.flatnonzero(bits[at : at + _SCAN_BYTES])
        if found.size:
            byte = int(bits[at + int(found[0])])
            return (at + int(found[0])) * 8 + (byte & -byte).bit_length() - 1
    return None


def _bits(bitmap: Bytes, first: int, after: int) -> Mask:
    low = first // 8
    bits = np.unpackbits(bitmap[low : -(-after // 8)], bitorder="little")
    return bits[first - low * 8 : after - low * 8].view(np.bool_)
