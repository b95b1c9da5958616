"""Headers of a new dump."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from snapmig.architectures import Architecture, architecture_name
from snapmig.images.elf.notes import PRSTATUS, Note, parse_notes
from snapmig.images.elf.vmcoreinfo import NOTE_NAME, text_value
from snapmig.images.kdump.header import MAGICS, Layout, SubHeader
from snapmig.images.kdump.placer import ZLIB

__all__ = ("NewHeader",)

_VERSION = 6
_NAMES = slice(12, 402)
_NAME_SIZE = 65
_PROCESSORS_AT = 9 * 4
"""Place of their number, behind the fields of every layout."""
_NUMBER = re.compile(rb"-?[0-9]{1,20}")
_LEVEL = 1
"""Pages of zeros may be left out, and no others."""


class NewHeader(NamedTuple):
    """
    Everything that headers are made of.

    :param saved: start of the dump that was saved, which has names of the system; may be empty
    :param page_size: of the guest, in bytes; everything is in blocks of that
    :param frames: page frames from address 0 on
    """

    layout: Layout
    architecture: Architecture
    notes: bytes
    erased: bytes
    saved: bytes
    page_size: int
    frames: int

    @property
    def blocks(self) -> int:
        """Blocks of sub header, notes and the list of what was erased."""
        size = self.layout.sub.size + len(self.notes) + len(self.erased)
        return -(-size // self.page_size)

    def pack(self, bitmap_blocks: int) -> bytes:
        """Return both headers with what stands behind them."""
        sub = self.layout.sub.pack(*self._sub_header()) + self.notes + self.erased
        return self._head(bitmap_blocks) + sub

    def _head(self, bitmap_blocks: int) -> bytes:
        layout, order = self.layout, self.layout.order
        head = bytearray(self.page_size)
        struct.pack_into(f"{order}8sI", head, 0, MAGICS[0], _VERSION)
        names = self.saved[_NAMES] or self._names()
        head[_NAMES] = names.ljust(_NAMES.stop - _NAMES.start, b"\0")
        frames = min(self.frames, (1 << 32) - 1)
        fields = (ZLIB, self.page_size, self.blocks, bitmap_blocks, frames)
        layout.main.pack_into(head, layout.main_offset, *fields)
        kinds = [(each.name, each.kind) for each in parse_notes(self.notes, order)]
        processors = kinds.count((b"CORE", PRSTATUS))
        struct.pack_into(f"{order}I", head, layout.main_offset + _PROCESSORS_AT, processors)
        return bytes(head)

    def _sub_header(self) -> SubHeader:
        start = self.page_size + self.layout.sub.size
        info, text = self._kernel_note()
        base = _NUMBER.fullmatch(text_value(text, b"NUMBER(phys_base)"))
        return SubHeader(
            phys_base=int(base[0]) % (1 << self.layout.bits) if base else 0,
            dump_level=_LEVEL,
            vmcoreinfo_offset=0 if info is None else start + info.start,
            vmcoreinfo_size=len(text),
            notes_offset=start if self.notes else 0,
            notes_size=len(self.notes),
            erased_offset=start + len(self.notes) if self.erased else 0,
            erased_size=len(self.erased),
            max_mapnr_64=self.frames,
        )

    def _kernel_note(self) -> tuple[Note | None, bytes]:
        for note in parse_notes(self.notes, self.layout.order):
            if note.name == NOTE_NAME:
                return note, self.notes[note.start : note.stop]
        return None, b""

    def _names(self) -> bytes:
        # As uname(2) has them, as far as the kernel's note tells; some readers want none empty.
        release = text_value(self._kernel_note()[1], b"OSRELEASE")
        machine = architecture_name(self.architecture).encode()
        system = (b"Linux", b"(none)", release, b"(none)", machine, b"(none)")
        words = system if release else (b"", b"", b"", b"", machine, b"")
        return b"".join(word[: _NAME_SIZE - 1].ljust(_NAME_SIZE, b"\0") for word in words)
