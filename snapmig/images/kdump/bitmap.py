"""
Bitmaps of page frames: the ranges of RAM, and the number of each page in the file.

Pages in the file are counted in the order of their addresses; the count up to every 32,768th frame
is kept, so that a worker counts the bits of one part only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError
from snapmig.images.kdump.contents import DumpContents
from snapmig.images.kdump.header import Header
from snapmig.images.kdump.shared import SharedArray, open_array
from snapmig.pages import Bytes, Mask

__all__ = ("FrameBitmap", "FrameBits", "Frames", "read_bitmaps")

MAX_RANGES = 4096

_STEP = 1 << 20
_PART = 4096
"""Bytes of a bitmap with one count."""

_Counts = npt.NDArray[np.int64]


class FrameBitmap:
    """
    The bitmap of the pages in the file, in a memfd for workers.

    :ivar counts: pages in the file before each part of the bitmap
    """

    def __init__(self, size: int) -> None:
        self._shared = SharedArray(size, np.uint8)
        self.counts: _Counts = np.zeros(-(-size // _PART) + 1, np.int64)

    @property
    def path(self) -> str:
        """A path for workers to open it."""
        return self._shared.path

    @property
    def pages(self) -> int:
        """Number of pages in the file."""
        return int(self.counts[-1])

    def put(self, at: int, bits: Bytes) -> None:
        """Take a piece of the bitmap, from the byte ``at`` on; pieces come in order."""
        if not bits.any():
            self.counts[at // _PART + 1 : (at + bits.size) // _PART + 1] = self.counts[at // _PART]
            return
        self._shared.array[at : at + bits.size] = bits
        found = np.bitwise_count(bits).reshape(-1, _PART).sum(axis=1, dtype=np.int64)
        first = at // _PART
        self.counts[first + 1 : first + 1 + found.size] = self.counts[first] + np.cumsum(found)

    def next_frame(self, frame: int) -> int | None:
        """Return the first frame from ``frame`` on with its page in the file, or None."""
        part = frame // 8 // _PART
        found = self._in_part(part, frame)
        if found is None:
            after = int(np.searchsorted(self.counts, self.counts[part + 1], "right"))
            found = None if after == len(self.counts) else self._in_part(after - 1, 0)
        return found

    def _in_part(self, part: int, frame: int) -> int | None:
        start = part * _PART
        bits = np.unpackbits(self._shared.array[start : start + _PART], bitorder="little")
        bits[: max(0, frame - start * 8)] = 0
        return start * 8 + int(bits.argmax()) if bits.any() else None

    def close(self) -> None:
        """Close it; it stays mapped where it is in use."""
        self._shared.close()


class FrameBits:
    """The same bitmap in a worker."""

    def __init__(self, path: str, counts: _Counts) -> None:
        self._bytes: Bytes = open_array(path, np.uint8)
        self._counts = counts

    def between(self, first: int, after: int) -> Mask:
        """Return a mask of frames: true for those with their page in the file."""
        low = first // 8
        bits = np.unpackbits(self._bytes[low : -(-after // 8)], bitorder="little")
        return bits[first - low * 8 : after - low * 8].view(np.bool_)

    def number(self, frame: int) -> int:
        """Return how many pages are in the file before that of a frame."""
        part = frame // 8 // _PART
        whole = np.bitwise_count(self._bytes[part * _PART : frame // 8]).sum(dtype=np.int64)
        rest = int(self._bytes[frame // 8]) & ((1 << frame % 8) - 1)
        return int(self._counts[part] + whole) + rest.bit_count()


class Frames(NamedTuple):
    """
    The page frames of a dump.

    :param ranges: RAM: the first frame of each range, and the frame after its last
    :param stored: those with their page in the file
    :param left_out: number of the others
    """

    ranges: Sequence[tuple[int, int]]
    stored: FrameBitmap
    left_out: int


def read_bitmaps(file: DumpContents, header: Header) -> Frames:
    """
    Return the page frames of a dump.

    :raises SnapmigError: no RAM, or in too many ranges
    """
    stored = FrameBitmap(header.bitmap_size)
    try:
        ranges: list[tuple[int, int]] = []
        for at, ram, dumped in _pieces(file, header):
            stored.put(at, dumped)
            firsts, afters = _runs(ram | dumped)
            if len(ranges) + firsts.size > MAX_RANGES:
                message = f"dump has more than {MAX_RANGES} ranges of RAM"
                raise SnapmigError(message, path=file.shown)
            for first, after in zip(firsts.tolist(), afters.tolist(), strict=True):
                goes_on = ranges and ranges[-1][1] == at * 8 + first
                start = ranges.pop()[0] if goes_on else at * 8 + first
                ranges.append((start, at * 8 + after))
        if not ranges:
            raise SnapmigError("dump has no page of RAM", path=file.shown)
    except BaseException:
        stored.close()
        raise
    return Frames(ranges, stored, sum(after - first for first, after in ranges) - stored.pages)


def _pieces(file: DumpContents, header: Header) -> Iterator[tuple[int, Bytes, Bytes]]:
    # Both bitmaps up to the last frame, in pieces of whole blocks.
    for at in range(0, header.bitmap_size, _STEP):
        length = min(_STEP, header.bitmap_size - at)
        both = [
            np.frombuffer(file.read(start + at, length), np.uint8).copy()
            for start in (header.bitmap_offset, header.bitmap_offset + header.bitmap_size)
        ]
        for bits in both:  # bits behind the last frame mean nothing
            used = min(max(header.frames - at * 8, 0), length * 8)
            bits[-(-used // 8) :] = 0
            if used % 8:
                bits[used // 8] &= (1 << used % 8) - 1
        yield at, both[0], both[1]


def _runs(bits: Bytes) -> tuple[_Counts, _Counts]:
    # First bit of each run, and the bit after its last.
    if not bits.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    edges = np.diff(np.unpackbits(bits, bitorder="little").view(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
