"""ELF cores, built by hand, right and wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from snapmig.geometry import PAGE_SIZE

ABSENT = -1
"""A segment's offset that says that it was left out."""


@dataclass(frozen=True)
class Segment:
    """A program header, and its bytes unless it names an offset itself."""

    paddr: int
    data: bytes = b""
    memsz: int | None = None
    offset: int | None = None
    filesz: int | None = None
    vaddr: int | None = None
    kind: int = 1


@dataclass(frozen=True)
class Core:
    """The parts of a core; every field can be wrong."""

    segments: tuple[Segment, ...]
    width: int = 64
    order: str = "<"
    notes: bytes = b"CORE notes, 23 bytes: #"
    tail: bytes = b""
    kind: int = 4
    count: int | None = None
    entry_size: int | None = None
    table_offset: int | None = None
    many: bool = False
    many_count: int | None = None
    section_offset: int | None = None

    def build(self) -> bytes:
        """Return the file: headers, notes, and memory right after them."""
        wide = self.width == 64
        header, entry, section = (64, 56, 64) if wide else (52, 32, 40)
        total = len(self.segments) + 1
        notes_at = header + total * entry + (section if self.many else 0)
        at = notes_at + len(self.notes)
        table = [self._entry(Segment(0, kind=4), notes_at, len(self.notes), len(self.notes))]
        memory = []
        for segment in self.segments:
            filesz = len(segment.data) if segment.filesz is None else segment.filesz
            memsz = filesz if segment.memsz is None else segment.memsz
            offset = at if segment.offset is None else segment.offset
            table.append(self._entry(segment, offset, filesz, memsz))
            memory.append(segment.data)
            at += len(segment.data)
        parts = [self._header(total, header, entry), *table]
        if self.many:
            parts.append(self._section(total if self.many_count is None else self.many_count))
        return b"".join([*parts, self.notes, *memory, self.tail])

    def _header(self, total: int, header: int, entry: int) -> bytes:
        ident = b"\x7fELF" + bytes([self.width // 32, 1 if self.order == "<" else 2, 1])
        count = total if self.count is None else self.count
        sections = header + total * entry if self.section_offset is None else self.section_offset
        return struct.pack(
            self.order + ("16sHHIQQQIHHHHHH" if self.width == 64 else "16sHHIIIIIHHHHHH"),
            ident, self.kind, 62, 1, 0, header if self.table_offset is None else self.table_offset,
            sections if self.many else 0, 0, header,
            entry if self.entry_size is None else self.entry_size,
            0xFFFF if self.many else count, 64, int(self.many), 0,
        )  # fmt: skip

    def _entry(self, segment: Segment, offset: int, filesz: int, memsz: int) -> bytes:
        mask = (1 << self.width) - 1
        vaddr = segment.paddr if segment.vaddr is None else segment.vaddr
        places = (offset & mask, vaddr & mask, segment.paddr & mask, filesz & mask, memsz & mask)
        if self.width == 64:
            return struct.pack(self.order + "IIQQQQQQ", segment.kind, 0, *places, 0)
        return struct.pack(self.order + "IIIIIIII", segment.kind, *places, 0, 0)

    def _section(self, count: int) -> bytes:
        words = "IIQQQQIIQQ" if self.width == 64 else "IIIIIIIIII"
        return struct.pack(self.order + words, *[0] * 7, count, 0, 0)


def noise(pages: int, seed: int = 1) -> bytes:
    """Return pages of noise."""
    return np.random.default_rng(seed).bytes(pages * PAGE_SIZE)
