"""
What QEMU's migration stream is made of: section types, flags, and where sections end.

What QEMU does is its own source: migration/savevm.c (sections, configuration), migration/ram.c
(the RAM section's block list and flags), docs/devel/migration/mapped-ram.rst. All integers of the
stream are big-endian.
"""

from __future__ import annotations

from snapmig.images.file import ImageFile

__all__ = ("bitmap_size", "ends_complete", "skip_full")

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
RAM_FLAGS = 0xFFF
"""Flags are in the bits below the smallest target page."""

MAPPED_RAM = "mapped-ram"
IGNORE_SHARED = "x-ignore-shared"
CAPABILITIES = "configuration/capabilities"
"""The subsection of the configuration that lists capabilities."""

_SECTIONS = (SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL, SECTION_COMMAND)
_MAX_EARLY_STATE = 64 << 20


def bitmap_size(length: int, page_size: int) -> int:
    """Return the bytes of a block's bitmap: whole 64-bit words."""
    return -(-(length // page_size) // 64) * 8


def ends_complete(file: ImageFile, after: int) -> bool:
    """
    Return whether a stream reaches its end mark.

    After it comes, but for old machine types, a description in JSON, the last thing of the file.

    :param after: where the part of the stream after the RAM block list starts
    """
    size = file.size
    first = max(after, size - (10 << 20))
    tail = file.read(first, size - first)
    brace = tail.find(b"{", tail.rfind(b"\0"))
    if brace >= 6 and tail[brace - 5] == SECTION_VMDESCRIPTION:
        length = int.from_bytes(tail[brace - 4 : brace])
        return tail[brace - 6] == SECTION_EOF and first + brace + length == size
    return False


def skip_full(data: memoryview, start: int) -> int:
    """
    Return where a device's full section ends, ``len(data)`` when that can't be seen.

    Only QEMU knows how long it is; but it ends in a footer with its own number, and a section of
    some kind follows.

    :param start: the section's first byte
    """
    footer = bytes([SECTION_FOOTER]) + bytes(data[start + 1 : start + 5])
    window = bytes(data[start : start + _MAX_EARLY_STATE])
    at = window.find(footer, 5)
    while at >= 0:
        end = at + len(footer)
        if end < len(window) and window[end] in _SECTIONS:
            return start + end
        at = window.find(footer, at + 1)
    return len(data)
