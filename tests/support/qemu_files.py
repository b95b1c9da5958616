"""
QEMU's migration files, built by hand from its documents; every field can be wrong.

See docs/devel/migration/main.rst and mapped-ram.rst of QEMU, and migration/ram.c.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from snapmig.geometry import Geometry
from snapmig.images.formats import open_image
from snapmig.images.source import read_pages

PAGE = 4096
ALIGNMENT = 1 << 16
"""Of pages in a mapped-ram file; QEMU has 1 MiB, and reads any number of whole pages."""
FOOTER = 0x7E
ZERO, MEM_SIZE, DATA, EOS, CONTINUE, FLUSH = 0x02, 0x04, 0x08, 0x10, 0x20, 0x200
RAM_ID = 2
MACHINE = b"pc-q35-10.0"


def page(value: int) -> bytes:
    """Return a page filled with a byte."""
    return bytes([value]) * PAGE


def short(name: bytes) -> bytes:
    """Return a string in QEMU's form, its length first."""
    return bytes([len(name)]) + name


def footer(number: int) -> bytes:
    """Return the end of a section."""
    return struct.pack(">BI", FOOTER, number)


def subsection(name: bytes, body: bytes) -> bytes:
    """Return a part of the configuration."""
    return b"\x05" + short(name) + struct.pack(">I", 1) + body


def configuration(*capabilities: bytes, more: bytes = b"", machine: bytes = MACHINE) -> bytes:
    """Return the start of a stream."""
    head = b"QEVM" + struct.pack(">IBI", 3, 7, len(machine)) + machine
    if capabilities:
        listed = b"".join(short(name) for name in capabilities)
        body = struct.pack(">I", len(capabilities)) + listed
        head += subsection(b"configuration/capabilities", body)
    return head + more


def ram_start(number: int = RAM_ID) -> bytes:
    """Return the header of the section with the list of RAM blocks."""
    return struct.pack(">BI", 1, number) + short(b"ram") + struct.pack(">II", 0, 4)


def device(number: int, name: bytes = b"timer", body: bytes = b"device state") -> bytes:
    """Return a device's section."""
    head = struct.pack(">BI", 4, number) + short(name) + struct.pack(">II", 0, 2)
    return head + body + footer(number)


DESCRIPTION = json.dumps({"page_size": PAGE, "devices": []}).encode()


def ram_end() -> bytes:
    """Return the section at the end of RAM, without pages."""
    return struct.pack(">BIQ", 3, RAM_ID, EOS) + footer(RAM_ID)


def ending(description: bytes = DESCRIPTION) -> bytes:
    """Return the bytes after RAM."""
    devices = device(5) + device(6, b"cpu")
    return devices + b"\0\x06" + struct.pack(">I", len(description)) + description


@dataclass(frozen=True)
class Block:
    """
    A RAM block.

    :param pages: the fill byte of each page, by its number; others are zero
    :param stale: pages with invalid bytes in a mapped-ram file
    :param left_out: with offsets of zero, as QEMU 11 writes a shared block
    """

    name: bytes = b"ram"
    size: int = 16 * PAGE
    pages: dict[int, int] = field(default_factory=dict)
    stale: dict[int, int] = field(default_factory=dict)
    gpa: int | None = None
    left_out: bool = False
    page_size: int = PAGE
    version: int = 1
    bitmap_offset: int | None = None
    pages_offset: int | None = None
    stated_size: int | None = None

    @property
    def content(self) -> bytes:
        """All of its RAM."""
        made = bytearray(self.size)
        for number, value in self.pages.items():
            made[number * PAGE : (number + 1) * PAGE] = page(value)
        return bytes(made)


@dataclass(frozen=True)
class Mapped:
    """A mapped-ram file."""

    blocks: Sequence[Block]
    start: int = 0
    capabilities: Sequence[bytes] = (b"mapped-ram",)
    head: bytes | None = None
    early: bytes = b""
    total: int | None = None
    list_end: int = EOS
    tail: bytes | None = None
    alignment: int = ALIGNMENT

    def build(self) -> bytes:
        """Return the file, zeros before its start."""
        head = configuration(*self.capabilities) if self.head is None else self.head
        sizes = sum(_stated(block) for block in self.blocks)
        total = (sizes if self.total is None else self.total) | MEM_SIZE
        file = bytearray(self.start)
        file += head + self.early + ram_start() + struct.pack(">Q", total)
        for block in self.blocks:
            file += short(block.name) + struct.pack(">Q", _stated(block))
            if block.gpa is not None:
                file += struct.pack(">Q", block.gpa)
            self._add(file, block)
        rest = footer(RAM_ID) + ram_end() + ending() if self.tail is None else self.tail
        return bytes(file + struct.pack(">Q", self.list_end) + rest)

    def _add(self, file: bytearray, block: Block) -> None:
        bitmap, pages = self._places(len(file) + 28, block)
        file += struct.pack(">IQQQ", block.version, block.page_size, bitmap, pages)
        if block.left_out:
            return
        real = len(file) + -(-block.size // PAGE // 64) * 8
        at = -(-real // self.alignment) * self.alignment
        bits = bytearray(at - len(file))
        for number in block.pages:
            bit = number * PAGE // max(block.page_size, PAGE)
            bits[bit // 8] |= 1 << bit % 8
        content = bytearray(block.content)
        for number, value in block.stale.items():
            content[number * PAGE : (number + 1) * PAGE] = page(value)
        file += bits + content

    def _places(self, end: int, block: Block) -> tuple[int, int]:
        if block.left_out:
            return 0, 0
        after = end + -(-block.size // PAGE // 64) * 8
        pages = -(-after // self.alignment) * self.alignment
        return (
            end if block.bitmap_offset is None else block.bitmap_offset,
            pages if block.pages_offset is None else block.pages_offset,
        )


def _stated(block: Block) -> int:
    return block.size if block.stated_size is None else block.stated_size


def data(number: int, value: int, name: bytes | None = None, flags: int = 0) -> bytes:
    """Return a page in a stream; without a name it is in the same block as the one before."""
    return _record(number, DATA | flags, name) + page(value)


def zero(number: int, name: bytes | None = None, fill: int = 0) -> bytes:
    """Return a page of zeros in a stream."""
    return _record(number, ZERO, name) + bytes([fill])


def _record(number: int, flags: int, name: bytes | None) -> bytes:
    if name is None:
        return struct.pack(">Q", number * PAGE | flags | CONTINUE)
    return struct.pack(">Q", number * PAGE | flags) + short(name)


def part(*records: bytes, kind: int = 2, number: int = RAM_ID) -> bytes:
    """Return a section with pages."""
    return struct.pack(">BI", kind, number) + b"".join(records) + struct.pack(">Q", EOS) + (
        footer(number)
    )  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """A classic stream: sections between the list of blocks and the end of RAM."""

    sections: Sequence[bytes]
    blocks: Sequence[Block] = (Block(),)
    capabilities: Sequence[bytes] = ()
    early: bytes = b""
    total: int | None = None
    list_end: Sequence[int] = (EOS,)
    last: bytes | None = None
    tail: bytes | None = None

    def build(self) -> bytes:
        """Return the file."""
        sizes = sum(_stated(block) for block in self.blocks)
        total = (sizes if self.total is None else self.total) | MEM_SIZE
        listed = b""
        for block in self.blocks:
            listed += short(block.name) + struct.pack(">Q", _stated(block))
            listed += b"" if block.gpa is None else struct.pack(">Q", block.gpa)
        parts = [configuration(*self.capabilities), self.early, ram_start()]
        parts += [struct.pack(">Q", total), listed]
        parts += [struct.pack(">Q", word) for word in self.list_end] + [footer(RAM_ID)]
        parts += [*self.sections, ram_end() if self.last is None else self.last]
        return b"".join([*parts, ending() if self.tail is None else self.tail])


def ram_of(path: Path, name: str | None = None) -> dict[str, bytes]:
    """Return the RAM of an image by block, read in packets as a save does."""
    image = open_image(str(path), name)
    try:
        geometry = Geometry(image.blocks, 16 * PAGE)
        reader = image.opener()()
        found = {block.name: b"" for block in image.blocks}
        for number in range(geometry.packet_count):
            place = geometry.place(number)
            pages = read_pages(reader, place)
            content = bytes(place.length) if pages is None else np.asarray(pages).tobytes()
            found[image.blocks[place.block].name] += content[: place.length]
        return found
    finally:
        image.close()
