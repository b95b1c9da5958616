"""
QEMU's mapped-ram migration files: each page at a fixed offset, with a bitmap of valid pages.

See QEMU's docs/devel/migration/mapped-ram.rst. A killed save leaves bitmaps of zeros, and the file
parses as a guest without memory; so a file without its end mark is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np

from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan, Later
from snapmig.images.qemu.addresses import place_pc_ram
from snapmig.images.qemu.attachments import attach_vm_state, load_vm_state
from snapmig.images.qemu.kept_state import MAX_STATE_SIZE
from snapmig.images.qemu.parse import Readable, parse_vm_state
from snapmig.images.qemu.sections import (
    MAGIC,
    MAPPED_RAM,
    RAM_EOS,
    bitmap_size,
    find_end_mark,
)
from snapmig.images.qemu.state import PLACE_SIZE, MappedPlace, QemuBlock, VmState
from snapmig.images.readers.bitmap import BitmapReader, Bits, PageBitmap
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.images.source import ImageReader

__all__ = (
    "NAME",
    "MappedImage",
    "has_magic",
    "open_at",
    "open_image",
    "plan_at",
    "plan_image",
    "read_state",
)

NAME = "mapped-ram"

PAGES_ALIGNMENT = 1 << 20
"""Alignment of a block's pages in QEMU's files."""


class MappedImage(PartsImage):
    """A mapped-ram file: parts read through bitmaps."""

    bitmaps: Sequence[PageBitmap] = ()

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function to open a reader in any process."""
        return partial(BitmapReader, self.parts, self.bitmaps)

    @cached_property
    def _bits(self) -> list[Bits]:
        return [Bits(*each) for each in zip(self.bitmaps, self.parts, strict=True)]

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on with a valid page."""
        for part, bitmap, bits in zip(self.parts, self.bitmaps, self._bits, strict=True):
            if start < part.stop:
                page = (max(start, part.start) - part.start) // bitmap.page_size
                found = bits.next_set(page)
                if found is not None:
                    return max(start, part.start + found * bitmap.page_size)
        return None


def has_magic(head: bytes) -> bool:
    """Return True if a stream's first KiB has the mapped-ram capability."""
    # The capabilities are in the configuration, at the very start.
    return head.startswith(MAGIC) and b"\x0amapped-ram" in head


def open_image(file: ImageFile) -> MappedImage:
    """
    Open a mapped-ram file.

    :raises SnapmigError: cut short, or an impossible field
    """
    return open_at(file, 0, NAME)


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a mapped-ram file.

    A snapshot made from such a file gets the same offsets again.

    :raises UsageError: the snapshot has no device state of QEMU
    """
    return plan_at(content, load_vm_state(content.attachments, NAME, content.blocks), 0)


def open_at(file: ImageFile, start: int, name: str) -> MappedImage:
    """Open a mapped-ram stream starting at an offset of its file."""
    whole, kept = read_state(file, start)
    blocks = tuple(RamBlock(block.name, block.length) for block in kept)
    geometry = Geometry(blocks, PAGE_SIZE)
    parts, bitmaps = [], []
    for number, block in enumerate(kept):
        assert block.mapped is not None
        begin = geometry.block_start(number)
        end = begin + block.length
        parts.append(Part(file.path, begin, end, block.mapped.pages_offset))
        bitmap = PageBitmap(file.path, block.mapped.bitmap_offset, block.mapped.page_size)
        bitmaps.append(bitmap)
    placed, architecture = place_pc_ram(whole, blocks)
    image = MappedImage(name, placed, parts, [file], attach_vm_state(whole))
    image.architecture = architecture
    image.bitmaps = bitmaps
    return image


def read_state(file: Readable, start: int) -> tuple[VmState, list[QemuBlock]]:
    """
    Return a stream's state, and the RAM blocks with pages in it.

    :raises SnapmigError: cut short, or an impossible field
    """
    state, after = parse_vm_state(file, start)
    if MAPPED_RAM not in state.capabilities:
        message = "the stream is a classic one, not a mapped-ram one"
        raise SnapmigError(message, path=file.shown, offset=start)
    if find_end_mark(file.read, after, file.size) is None:
        message = "the stream has no end mark: the save was cut short, or is not done yet"
        raise SnapmigError(message, path=file.shown)
    if file.size - after > MAX_STATE_SIZE:
        message = f"device state has {file.size - after} bytes, expected at most {MAX_STATE_SIZE}"
        raise SnapmigError(message, path=file.shown)
    kept = [block for block in state.blocks if block.mapped and not block.mapped.left_out]
    return state._replace(after=file.read(after, file.size - after)), kept


def plan_at(content: Content, state: VmState, start: int, head: bytes = b"") -> ImagePlan:
    """
    Return the plan of a mapped-ram stream starting at an offset of its file.

    :param head: the bytes before the stream
    """
    same = MAPPED_RAM in state.capabilities and state.start == start
    if not same:
        state = state.with_capability(MAPPED_RAM, on=True)
    known = {block.name: number for number, block in enumerate(content.blocks)}
    offsets = [0] * len(content.blocks)
    first = state.head() + state.total()
    pieces: list[tuple[int, bytes | Later]] = [(0, head), (start, first)]
    end = start + len(first)
    for block in state.blocks:
        entry = state.block_entry(block)
        place = (
            block.mapped if same and block.mapped else _place(block, end + len(entry) + PLACE_SIZE)
        )
        if block.name not in known:
            place = MappedPlace(PAGE_SIZE, 0, 0)
        pieces.append((end, entry + place.header()))
        end += len(pieces[-1][1])
        if place.pages_offset:
            number = known[block.name]
            make = partial(_bitmap, content, number, block, place.page_size)
            size = bitmap_size(block.length, place.page_size)
            pieces.append((place.bitmap_offset, Later(size, make)))
            offsets[number] = place.pages_offset
            end = place.pages_offset + block.length
    pieces.append((end, struct.pack(">Q", RAM_EOS) + state.after))
    return ImagePlan(end + len(pieces[-1][1]), tuple(offsets), pieces)


def _place(block: QemuBlock, bitmap_offset: int) -> MappedPlace:
    end = bitmap_offset + bitmap_size(block.length, PAGE_SIZE)
    return MappedPlace(PAGE_SIZE, bitmap_offset, -(-end // PAGES_ALIGNMENT) * PAGES_ALIGNMENT)


def _bitmap(content: Content, number: int, block: QemuBlock, page_size: int) -> bytes:
    pages = np.concatenate([*content.data_pages(number)])[: -(-block.length // PAGE_SIZE)]
    bits = pages.reshape(-1, page_size // PAGE_SIZE).any(axis=1)
    packed = np.packbits(bits, bitorder="little").tobytes()
    return packed.ljust(bitmap_size(block.length, page_size), b"\0")
