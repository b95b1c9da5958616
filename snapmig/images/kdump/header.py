"""
Headers of kdump-compressed dumps, as makedumpfile and QEMU write them.

A header of the width and byte order of the guest's processors in the first block, the sub header in
the second, then a bitmap of the page frames that are RAM, one of those in the file, and a table of
these with the place of each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from snapmig.errors import SnapmigError
from snapmig.images.kdump.contents import DumpContents

__all__ = ("MAGICS", "Header", "Layout", "SubHeader", "read_header")

MAGICS = (b"KDUMP   ", b"DISKDUMP")
MAX_BITMAP_SIZE = 256 << 20
"""Bytes of one bitmap: 8 TiB of guest physical addresses."""
MAX_NOTES_SIZE = 64 << 20

_MACHINE = slice(12 + 4 * 65, 12 + 5 * 65)
_INCOMPLETE = 8
BLOCK_SIZES = (4096, 8192, 16384, 32768, 65536)
_VERSIONS = range(1, 7)


class Layout(NamedTuple):
    """Width and byte order of a header, and where it has what."""

    bits: int
    order: str

    @property
    def main(self) -> struct.Struct:
        """Status, size of a block, blocks of the sub header and of both bitmaps, page frames."""
        return struct.Struct(f"{self.order}5I")

    @property
    def main_offset(self) -> int:
        """Place of these: behind names of the system, and a time."""
        return 424 if self.bits == 64 else 412

    @property
    def sub(self) -> struct.Struct:
        """The sub header, with the fields of :class:`SubHeader`."""
        return struct.Struct(self.order + ("Q2I8Q3Q" if self.bits == 64 else "5IQIQIQI3Q"))


LAYOUTS = tuple(Layout(bits, order) for bits in (64, 32) for order in "<>")


class SubHeader(NamedTuple):
    """Fields of the second header."""

    phys_base: int = 0
    dump_level: int = 0
    split: int = 0
    start_pfn: int = 0
    end_pfn: int = 0
    vmcoreinfo_offset: int = 0
    vmcoreinfo_size: int = 0
    notes_offset: int = 0
    notes_size: int = 0
    erased_offset: int = 0
    erased_size: int = 0
    start_pfn_64: int = 0
    end_pfn_64: int = 0
    max_mapnr_64: int = 0


class Header(NamedTuple):
    """
    The checked headers of a dump.

    :param machine: name of the processor, empty if not known
    :param frames: number of page frames, from address 0 on
    :param bitmap_size: bytes of one bitmap
    """

    layout: Layout
    version: int
    machine: str
    block_size: int
    frames: int
    bitmap_offset: int
    bitmap_size: int
    sub: SubHeader

    @property
    def table_offset(self) -> int:
        """Place of the table of pages."""
        return self.bitmap_offset + 2 * self.bitmap_size


def read_header(file: DumpContents) -> Header:
    """
    Return the headers of a dump.

    :raises SnapmigError: cut short, or an impossible field
    """
    head = file.read(0, min(file.size, BLOCK_SIZES[0]))
    found = next(_headers(head, file), None)
    if found is None:
        message = "headers of a kdump dump are for no known width, byte order and version"
        raise SnapmigError(message, path=file.shown)
    if found.bitmap_size > MAX_BITMAP_SIZE:
        message = f"bitmap has {found.bitmap_size} bytes, expected at most {MAX_BITMAP_SIZE}"
        raise SnapmigError(message, path=file.shown)
    if found.table_offset > file.size:
        message = f"bitmaps end at {found.table_offset:#x}, the dump at {file.size:#x}: is it cut?"
        raise SnapmigError(message, path=file.shown)
    return found


def saved_block_size(head: bytes, layout: Layout) -> int:
    """Return the size of a block in the start of a dump, 0 if it is of another layout."""
    if len(head) < layout.main_offset + layout.main.size:
        return 0
    size = int(layout.main.unpack_from(head, layout.main_offset)[1])
    return size if size in BLOCK_SIZES else 0


def _headers(head: bytes, file: DumpContents) -> Iterator[Header]:
    # Nothing says which width and order it is: the one in which all makes sense.
    for layout in LAYOUTS:
        if len(head) < layout.main_offset + layout.main.size:
            return
        (version,) = struct.unpack_from(f"{layout.order}I", head, 8)
        status, block, sub_blocks, bitmap_blocks, frames = layout.main.unpack_from(
            head, layout.main_offset
        )
        if version not in _VERSIONS or block not in BLOCK_SIZES or not sub_blocks:
            continue
        sub = _sub_header(layout, version, file, block)
        frames = sub.max_mapnr_64 or frames
        size = bitmap_blocks // 2 * block
        if not 0 < frames <= size * 8 or bitmap_blocks % 2:
            continue
        if status & _INCOMPLETE:
            message = "dump is marked as incomplete: whoever wrote it ran out of space"
            raise SnapmigError(message, path=file.shown)
        if sub.split:
            message = "dump is one part of several: join them first (makedumpfile --reassemble)"
            raise SnapmigError(message, path=file.shown)
        machine = head[_MACHINE].split(b"\0")[0].decode("ascii", "replace")
        start = (1 + sub_blocks) * block
        yield Header(layout, version, machine, block, frames, start, size, sub)


def _sub_header(layout: Layout, version: int, file: DumpContents, block: int) -> SubHeader:
    # Later versions have more fields; before that, there may be anything.
    if file.read(0, 8) != MAGICS[0] or file.size < block + layout.sub.size:
        return SubHeader()
    fields = list(layout.sub.unpack(file.read(block, layout.sub.size)))
    known = {1: 2, 2: 5, 3: 7, 4: 9, 5: 11}.get(version, len(fields))
    return SubHeader(*fields[:known])
