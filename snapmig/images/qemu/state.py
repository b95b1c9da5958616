"""
Everything in a migration file except pages: configuration, RAM block list, device state.

Each of QEMU's formats can be written from it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from snapmig.geometry import PAGE_SIZE
from snapmig.images.qemu.sections import (
    CAPABILITIES,
    IGNORE_SHARED,
    MAGIC,
    MAPPED_RAM,
    RAM_MEM_SIZE,
    SECTION_CONFIGURATION,
    SECTION_FOOTER,
    SECTION_SUBSECTION,
    VERSION,
    bitmap_size,
    find_end_mark,
)

__all__ = ("MappedPlace", "QemuBlock", "VmState")


PLACE_SIZE = 28
"""Bytes of a block's header, as packed by :meth:`MappedPlace.header`."""


class MappedPlace(NamedTuple):
    """Place of a block in a mapped-ram file: absolute offsets, both zero for a block left out."""

    page_size: int
    bitmap_offset: int
    pages_offset: int

    def header(self) -> bytes:
        """Return the bytes after the block's entry in the file."""
        return struct.pack(">IQQQ", 1, *self)

    @property
    def left_out(self) -> bool:
        """True if the file lacks the block's RAM, because of x-ignore-shared."""
        return self.bitmap_offset == self.pages_offset == 0

    def problem(self, length: int, first: int) -> str | None:
        """
        Return the reason why a block can't be here, None if it can.

        :param length: of the block, in bytes
        :param first: the offset after the block's header
        """
        size = self.page_size
        if size < PAGE_SIZE or size & (size - 1) or length % size:
            return f"block of {length} bytes has pages of {size}"
        bitmap_end = self.bitmap_offset + bitmap_size(length, size)
        ordered = first <= self.bitmap_offset < bitmap_end <= self.pages_offset
        if not ordered or self.pages_offset % PAGE_SIZE:
            return f"bitmap is at {self.bitmap_offset:#x}, pages at {self.pages_offset:#x}"
        return None


class QemuBlock(NamedTuple):
    """
    A RAM block as listed in the stream.

    :param gpa: its address according to x-ignore-shared: 0 for the tables of firmware as well, and
        only the lower part's for RAM on both sides of the gap below 4 GiB, so of use to QEMU alone
    :param page_size: of its memory; listed if it is another than usual, for postcopy only
    """

    name: str
    length: int
    gpa: int | None = None
    mapped: MappedPlace | None = None
    page_size: int = PAGE_SIZE


class VmState(NamedTuple):
    """
    Everything in a migration file except pages.

    :param start: the offset of the stream in its file
    :param subsections: of the configuration: name, version and body in hexadecimal; an empty body
        marks the place of the capabilities
    :param ram_header: the RAM section's bytes before its payload
    :param list_end: the words after the list of RAM blocks: flushes, then its end
    :param before: sections between the configuration and RAM
    :param after: everything after the RAM section's first payload
    """

    start: int
    machine: str
    capabilities: tuple[str, ...]
    subsections: tuple[tuple[str, int, str], ...]
    ram_header: bytes
    blocks: tuple[QemuBlock, ...]
    before: bytes
    list_end: bytes
    after: bytes

    @property
    def section_id(self) -> int:
        """The number of the RAM section."""
        return int.from_bytes(self.ram_header[1:5])

    @property
    def has_footers(self) -> bool:
        """True if sections end in a footer, as in all but very old machine types."""
        return self.after[:1] == bytes([SECTION_FOOTER])

    @property
    def end_mark(self) -> int | None:
        """Offset of the stream's end mark in ``after``, None if it has none."""
        after = self.after
        return find_end_mark(lambda start, length: after[start : start + length], 0, len(after))

    def with_capability(self, name: str, *, on: bool) -> VmState:
        """Return the same state with a capability added or removed."""
        others = tuple(known for known in self.capabilities if known != name)
        capabilities = (*others, name) if on else others
        subsections = tuple(item for item in self.subsections if item[0] != CAPABILITIES)
        if capabilities:
            subsections = ((CAPABILITIES, 1, ""), *subsections)
        return self._replace(capabilities=capabilities, subsections=subsections)

    def classic(self) -> VmState:
        """Return the same state for a stream without mapped-ram."""
        blocks = tuple(block._replace(mapped=None) for block in self.blocks)
        return self.with_capability(MAPPED_RAM, on=False)._replace(blocks=blocks)

    def opening(self) -> bytes:
        """Return a classic stream up to the end of the list of RAM blocks."""
        entries = b"".join(self.block_entry(block) for block in self.blocks)
        return self.head() + self.total() + entries + self.list_end

    def head(self) -> bytes:
        """Return the stream up to the RAM section's payload."""
        machine = self.machine.encode()
        parts = [
            MAGIC,
            struct.pack(">IBI", VERSION, SECTION_CONFIGURATION, len(machine)),
            machine,
        ]
        for name, version, body in self.subsections:
            title = name.encode()
            parts.append(bytes([SECTION_SUBSECTION, len(title)]) + title)
            parts.append(struct.pack(">I", version))
            parts.append(
                _pack_capabilities(self.capabilities)
                if name == CAPABILITIES
                else bytes.fromhex(body)
            )
        return b"".join([*parts, self.before, self.ram_header])

    def total(self) -> bytes:
        """Return the size of all blocks as at the start of the payload."""
        return struct.pack(">Q", sum(block.length for block in self.blocks) | RAM_MEM_SIZE)

    def block_entry(self, block: QemuBlock) -> bytes:
        """Return a block's entry in the payload, without the header of mapped-ram."""
        name = block.name.encode()
        entry = bytes([len(name)]) + name + struct.pack(">Q", block.length)
        if block.page_size != PAGE_SIZE:
            entry += struct.pack(">Q", block.page_size)
        if IGNORE_SHARED in self.capabilities:
            entry += struct.pack(">Q", block.gpa or 0)
        return entry


def _pack_capabilities(names: tuple[str, ...]) -> bytes:
    parts = [struct.pack(">I", len(names))]
    parts += [bytes([len(name)]) + name.encode() for name in names]
    return b"".join(parts)
