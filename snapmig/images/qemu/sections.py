"""
What QEMU's migration stream is made of: section types, flags, and where sections end.

What QEMU does is its own source: migration/savevm.c (sections, configuration), migration/ram.c
(the RAM section's block list and flags), docs/devel/migration/mapped-ram.rst. All integers of the
stream are big-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ("Searchable", "bitmap_size", "find_end_mark", "skip_full")

MAGIC = b"QEVM"
VERSION = 3

SECTION_EOF = 0x00
SECTION_START = 0x01
SECTION_PART = 0x02
SECTION_END = 0x03
SECTION_FULL = 0x04
SECTION_SUBSECTION = 0x05
SECTION_VMDESCRIPTION = 0x06
SECTION_CONFIGURATION = 0x07
SECTION_COMMAND = 0x08
SECTION_FOOTER = 0x7E

RAM_MEM_SIZE = 0x04
RAM_EOS = 0x10
RAM_FLUSH = 0x200
"""A word of its own: pages of other connections up to here are complete."""
RAM_FLAGS = 0xFFF
"""Flags are in the bits below the smallest target page."""

MAPPED_RAM = "mapped-ram"
IGNORE_SHARED = "x-ignore-shared"
CAPABILITIES = "configuration/capabilities"
"""The subsection of the configuration that lists capabilities."""

SECTION_BYTES = frozenset(
    bytes([kind])
    for kind in (SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL, SECTION_COMMAND)
)
"""What may stand where a section ends and RAM or devices go on."""
_DESCRIPTION_HEAD = 6
"""Bytes from the end mark to the description: the mark, the section's type, the length."""
_STEP = 1 << 20
_MAX_DESCRIPTION = 64 << 20


class Searchable(Protocol):
    """Bytes in which other bytes are found without a copy: bytes, or a mapping."""

    def find(self, wanted: bytes, start: int, stop: int, /) -> int:
        """Return the offset of the first place, -1 when there is none."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Return a copy of a range."""

    def __len__(self) -> int:
        """Return how many bytes there are."""


def bitmap_size(length: int, page_size: int) -> int:
    """Return the bytes of a block's bitmap: whole 64-bit words."""
    return -(-(length // page_size) // 64) * 8


def find_end_mark(read: Callable[[int, int], bytes], after: int, size: int) -> int | None:
    """
    Return where a stream's end mark stands, None where it has none.

    After it comes, but for old machine types, a description in JSON, the last thing of the file.

    :param read: gives bytes by offset and length
    :param after: where the part of the stream after the RAM block list starts
    :param size: where the file ends
    """
    # JSON has no NUL, so the mark is among the bytes before the last one: the description's length
    # may hold any bytes, that NUL and "{" too.
    first, zero = size, -1
    while zero < 0 and first > max(after, size - _MAX_DESCRIPTION):
        start, stop = max(after, first - _STEP), first
        first = start
        zero = read(start, stop - start).rfind(b"\0")
    if zero < 0:
        return None
    last = first + zero
    start = max(after, last - _DESCRIPTION_HEAD + 1)
    head = read(start, min(size, last + _DESCRIPTION_HEAD + 1) - start)
    marks = (at for at in range(last - start + 1) if _is_end_mark(head[at:], size - start - at))
    found = next(marks, None)
    return None if found is None else start + found


def _is_end_mark(head: bytes, left: int) -> bool:
    length = int.from_bytes(head[2:_DESCRIPTION_HEAD])
    return (
        head[:2] == bytes([SECTION_EOF, SECTION_VMDESCRIPTION])
        and head[_DESCRIPTION_HEAD : _DESCRIPTION_HEAD + 1] == b"{"
        and left == _DESCRIPTION_HEAD + length
    )


def skip_full(data: Searchable, start: int, stop: int) -> int | None:
    """
    Return where a device's full section ends, None when that can't be seen.

    Only QEMU knows how long it is; but it ends in a footer with its own number, and a section of
    some kind follows, or the end of the stream.

    :param start: the section's first byte
    :param stop: where the stream's end mark stands
    """
    footer = bytes([SECTION_FOOTER]) + data[start + 1 : start + 5]
    at = data.find(footer, start + 5, stop)
    while at >= 0:
        end = at + len(footer)
        if end == stop or data[end : end + 1] in SECTION_BYTES:
            return end
        at = data.find(footer, at + 1, stop)
    return None
