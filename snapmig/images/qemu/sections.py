"""
Elements of QEMU's migration stream: section types, flags, and the ends of sections.

QEMU's source is the specification: migration/savevm.c (sections, configuration), migration/ram.c
(the RAM section's block list and flags), docs/devel/migration/mapped-ram.rst. All integers of the
stream are big-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy with it
    from snapmig.images.readers.page_table import Searchable

__all__ = ("bitmap_size", "find_end_mark", "skip_full")

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
"""A separate word: pages from other connections are complete up to here."""
RAM_FLAGS = 0xFFF
"""Flags are in the bits below the smallest target page."""

MAPPED_RAM = "mapped-ram"
IGNORE_SHARED = "x-ignore-shared"
CAPABILITIES = "configuration/capabilities"
"""The subsection of the configuration with the list of capabilities."""

SECTION_BYTES = frozenset(
    bytes([kind])
    for kind in (SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL, SECTION_COMMAND)
)
"""Possible bytes after the end of a section, while RAM or devices continue."""
_DESCRIPTION_HEAD = 6
"""Bytes from the end mark to the description: the mark, the section's type, the length."""
_STEP = 1 << 20
_MAX_DESCRIPTION = 64 << 20


def bitmap_size(length: int, page_size: int) -> int:
    """Return the bytes of a block's bitmap: whole 64-bit words."""
    return -(-(length // page_size) // 64) * 8


def find_end_mark(read: Callable[[int, int], bytes], after: int, size: int) -> int | None:
    """
    Return the offset of a stream's end mark, None if it has none.

    Except for old machine types, a description in JSON follows it and ends the file.

    :param read: returns bytes by offset and length
    :param after: offset of the stream's part after the RAM block list
    :param size: of the file, its end
    """
    # JSON has no NUL, so the mark is among the bytes before the last one. The description's length
    # may hold any bytes, including that NUL and "{".
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
    Return the end of a device's full section, None if it can't be found.

    Only QEMU knows its length; but it ends in a footer with its own number, followed by a section
    of some kind or by the end of the stream.

    :param start: the section's first byte
    :param stop: offset of the stream's end mark
    """
    footer = bytes([SECTION_FOOTER]) + data[start + 1 : start + 5]
    at = data.find(footer, start + 5, stop)
    while at >= 0:
        end = at + len(footer)
        if end == stop or data[end : end + 1] in SECTION_BYTES:
            return end
        at = data.find(footer, at + 1, stop)
    return None
