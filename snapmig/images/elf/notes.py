"""Notes of a dump: registers of the processors, if its source had them, and VMCOREINFO."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from snapmig.architectures import ARCHITECTURES, Architecture
from snapmig.images.elf.kept import saved_notes
from snapmig.images.elf.vmcoreinfo import NOTE_NAME
from snapmig.images.plan import Content

__all__ = ("PRSTATUS", "Note", "core_notes", "guess_architecture", "parse_notes")

PRSTATUS = 1
MAX_NOTES = 1 << 16
"""A guest has a few for each processor."""
_REGISTERS = {
    ("<", 336): "x86_64",
    ("<", 392): "aarch64",
    ("<", 376): "riscv64",
    ("<", 504): "ppc64le",
    (">", 336): "s390x",
    ("<", 144): "i386",
    ("<", 148): "arm",
}
"""Byte orders and lengths of notes with a processor's registers."""


class Note(NamedTuple):
    """A note: its name, its type, and the range of its description."""

    name: bytes
    kind: int
    start: int
    stop: int


def core_notes(content: Content, architecture: Architecture) -> bytes:
    """
    Return the notes for a dump of a snapshot, as they stand in a segment of an ELF core.

    These are those of the dump that was saved, and the kernel's.

    :raises CorruptSnapshotError: the attachments of a saved core are damaged
    """
    attachments = content.attachments
    saved = attachments.get("kdump.notes") or saved_notes(attachments, content.ram_size)
    order = "<" if architecture.little else ">"
    if any(note.name == NOTE_NAME for note in parse_notes(saved, order)):
        return saved
    text = attachments.get("kdump.vmcoreinfo") or content.kernel_note()
    return saved if text is None else _padded(saved) + _note(NOTE_NAME, text, order)


def guess_architecture(notes: bytes, order: str) -> Architecture | None:
    """Return the architecture whose processors' registers the notes have, None if not known."""
    for note in parse_notes(notes, order):
        if note.name == b"CORE" and note.kind == PRSTATUS:
            found = _REGISTERS.get((order, note.stop - note.start))
            return None if found is None else ARCHITECTURES[found]
    return None


def parse_notes(notes: bytes, order: str) -> Iterator[Note]:
    """Yield the notes, up to one that is cut short."""
    at, sizes = 0, struct.Struct(f"{order}3I")
    for _ in range(MAX_NOTES):
        if len(notes) - at < sizes.size:
            return
        name_size, size, kind = sizes.unpack_from(notes, at)
        name = at + sizes.size
        start = name + name_size + -name_size % 4
        if start + size > len(notes):
            return
        yield Note(notes[name : name + name_size].rstrip(b"\0"), kind, start, start + size)
        at = start + size + -size % 4


def _note(name: bytes, description: bytes, order: str) -> bytes:
    header = struct.pack(f"{order}3I", len(name) + 1, len(description), 0)
    return header + _padded(name + b"\0") + _padded(description)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
