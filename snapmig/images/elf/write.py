"""Write ELF cores: notes, and a segment for each piece of RAM."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from snapmig.architectures import Architecture
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.elf.notes import core_notes
from snapmig.images.plan import Content, ImagePlan, warn_of_missing
from snapmig.images.spans import Span, SpanPlacer, piece_spans

__all__ = ("plan_core",)

_CORE = 4
_LOAD = 1
_NOTE = 4
_READ_WRITE_EXECUTE = 7
_MAX_SEGMENTS = 0xFFFE


class _Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    address: int
    size: int
    alignment: int


class _Form(NamedTuple):
    # Class (32 or 64 bits) and byte order of the headers.
    bits: int
    order: str

    @property
    def header_size(self) -> int:
        return 64 if self.bits == 64 else 52

    @property
    def entry_size(self) -> int:
        return 56 if self.bits == 64 else 32

    def header(self, machine: int, segments: int) -> bytes:
        ident = b"\x7fELF" + bytes([self.bits // 32, 1 if self.order == "<" else 2, 1])
        address = "Q" if self.bits == 64 else "I"
        return struct.pack(
            f"{self.order}16sHHI3{address}I6H", ident, _CORE, machine, 1, 0, self.header_size, 0, 0,
            self.header_size, self.entry_size, segments, 0, 0, 0,
        )  # fmt: skip

    def entry(self, item: _Segment) -> bytes:
        places = (item.offset, item.address, item.address, item.size, item.size)
        if self.bits == 64:
            words = (item.kind, item.flags, *places, item.alignment)
            return struct.pack(f"{self.order}2I6Q", *words)
        return struct.pack(f"{self.order}8I", item.kind, *places, item.flags, item.alignment)


def plan_core(content: Content, name: str) -> ImagePlan:
    """
    Return the plan of a core with the pieces of a snapshot's RAM blocks.

    :param name: of the format, for messages
    :raises UsageError: no guest physical address is known, or not the architecture
    """
    missing = warn_of_missing(content.blocks, name)
    if content.architecture is None:
        message = f"{name} needs the guest's architecture, which is not known: --arch names it"
        raise UsageError(message)
    pieces = piece_spans(content.blocks)
    if len(pieces) >= _MAX_SEGMENTS:
        message = f"{name} has room for {_MAX_SEGMENTS - 1} pieces of RAM, there are {len(pieces)}"
        raise UsageError(message)
    form = _form(content.architecture, pieces)
    end = form.header_size + (1 + len(pieces)) * form.entry_size
    notes = core_notes(content, content.architecture)
    segments = [_Segment(_NOTE, 0, end, 0, len(notes), 4)]
    end += len(notes)
    spans = []
    for start, stop, gpa in pieces:
        # At a whole page, so that pages of zeros can be holes. No alignment is named, as in
        # QEMU's and the kernel's cores: crash takes one with an alignment for something else.
        offset = -(-end // PAGE_SIZE) * PAGE_SIZE
        size = stop - start
        segments.append(_Segment(_LOAD, _READ_WRITE_EXECUTE, offset, gpa, size, 0))
        spans.append(Span(start, stop, offset))
        end = offset + size
    head = form.header(content.architecture.machine, len(segments))
    head += b"".join(map(form.entry, segments))
    return ImagePlan(end, (), [(0, head + notes)], SpanPlacer(spans), warnings=missing)


def _form(architecture: Architecture, pieces: Sequence[Span]) -> _Form:
    # As QEMU does it, with 64 bits where 32 are too few for an address or for the file.
    top = max(span.offset + span.stop - span.start for span in pieces)
    total = sum(span.stop - span.start + 2 * PAGE_SIZE for span in pieces)
    bits = architecture.bits if max(top, total) < 1 << 32 else 64
    return _Form(bits, "<" if architecture.little else ">")
