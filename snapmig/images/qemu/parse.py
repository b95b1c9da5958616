"""Parse the part of a migration stream before the pages."""

from __future__ import annotations

import struct
from typing import Protocol

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import MAX_RAM_SIZE, PAGE_SIZE
from snapmig.images.qemu.sections import (
    CAPABILITIES,
    IGNORE_SHARED,
    MAGIC,
    MAPPED_RAM,
    RAM_EOS,
    RAM_FLAGS,
    RAM_FLUSH,
    RAM_MEM_SIZE,
    SECTION_CONFIGURATION,
    SECTION_START,
    SECTION_SUBSECTION,
    VERSION,
)
from snapmig.images.qemu.state import MappedPlace, QemuBlock, VmState

__all__ = ("NoRamSectionError", "Readable", "parse_vm_state")

_SUBSECTION_SIZES = {"configuration/target-page-bits": 4, "configuration/uuid": 16}

_MAX_BLOCKS = 4096
_MAX_CAPABILITIES = 256
_MAX_FLUSHES = 16
_SEARCH_BYTES = 64 << 20
"""Bytes after the configuration searched for the RAM section."""


class NoRamSectionError(SnapmigError):
    """A stream has no RAM section, as far as it goes."""


class Readable(Protocol):
    """
    Bytes of a stream to parse.

    :ivar shown: their display name
    """

    shown: str

    @property
    def size(self) -> int:
        """Their number."""

    def read(self, offset: int, length: int) -> bytes:
        """
        Return some of them.

        :raises SnapmigError: they end too early
        """


class Cursor:
    """Reads a stream's fields one after the other."""

    def __init__(self, file: Readable, offset: int) -> None:
        self._file = file
        self.offset = offset

    @property
    def shown(self) -> str:
        """The file's display name."""
        return self._file.shown

    def take(self, length: int) -> bytes:
        """Return the next bytes."""
        data = self._file.read(self.offset, length)
        self.offset += length
        return data

    def number(self, size: int) -> int:
        """Return the next unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size))

    def text(self) -> str:
        """Return the next string: one byte of length, then its bytes."""
        return self.decode(self.take(self.number(1)))

    def refuse(self, words: str) -> SnapmigError:
        """Return an error about this position."""
        return SnapmigError(words, path=self._file.shown, offset=self.offset)

    def decode(self, raw: bytes) -> str:
        """Return a name as text."""
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.refuse(f"name {raw!r} is not text") from error


def parse_vm_state(file: Readable, start: int = 0) -> tuple[VmState, int]:
    """
    Return a stream's state without ``after``, and the offset of that part.

    :param start: of the stream in the file
    :raises SnapmigError: not a stream, or an impossible field
    :raises UnsupportedError: an unknown part of the configuration
    """
    cursor = Cursor(file, start)
    if cursor.take(4) != MAGIC or cursor.number(4) != VERSION:
        raise cursor.refuse(f"not a QEMU migration stream of version {VERSION}")
    machine, capabilities, subsections = _parse_configuration(cursor)
    configured = cursor.offset
    header = _find_ram(file, cursor)
    before = file.read(configured, cursor.offset - len(header) - configured)
    blocks = _parse_blocks(file, cursor, capabilities)
    state = VmState(start, machine, capabilities, subsections, header, blocks, before, b"", b"")
    return state._replace(list_end=_parse_list_end(cursor)), cursor.offset


def _parse_configuration(
    cursor: Cursor,
) -> tuple[str, tuple[str, ...], tuple[tuple[str, int, str], ...]]:
    if cursor.number(1) != SECTION_CONFIGURATION:
        cursor.offset -= 1
        raise cursor.refuse("expected the configuration section")
    length = cursor.number(4)
    if not 0 < length < 256:
        raise cursor.refuse(f"machine type has {length} bytes, expected 1 to 255")
    machine = cursor.decode(cursor.take(length))
    if not machine.isprintable():
        raise cursor.refuse(f"machine type {machine!r} is not text")
    capabilities: tuple[str, ...] = ()
    subsections = []
    while cursor.number(1) == SECTION_SUBSECTION:
        name, version = cursor.text(), cursor.number(4)
        body = b""
        if name == CAPABILITIES:
            capabilities = _parse_capabilities(cursor)
        elif name in _SUBSECTION_SIZES:
            body = cursor.take(_SUBSECTION_SIZES[name])
        else:
            message = f"configuration has {name!r}, which is not known here"
            raise UnsupportedError(message, path=cursor.shown, offset=cursor.offset)
        subsections.append((name, version, body.hex()))
    cursor.offset -= 1
    return machine, capabilities, tuple(subsections)


def _parse_capabilities(cursor: Cursor) -> tuple[str, ...]:
    count = cursor.number(4)
    if count > _MAX_CAPABILITIES:
        raise cursor.refuse(f"{count} capabilities, expected at most {_MAX_CAPABILITIES}")
    return tuple(cursor.text() for _ in range(count))


def _find_ram(file: Readable, cursor: Cursor) -> bytes:
    # Usually it is next. Some devices put their state before it, and only QEMU knows its length.
    tail = b"\x03ram" + struct.pack(">II", 0, 4)
    length = 5 + len(tail)
    window = file.read(cursor.offset, min(_SEARCH_BYTES, file.size - cursor.offset))
    at = window.find(tail)
    while at >= 0:
        if at >= 5 and window[at - 5] == SECTION_START:
            cursor.offset += at - 5 + length
            return window[at - 5 : at + len(tail)]
        at = window.find(tail, at + 1)
    message = "there is no RAM section of version 4"
    raise NoRamSectionError(message, path=cursor.shown, offset=cursor.offset)


def _parse_blocks(
    file: Readable, cursor: Cursor, capabilities: tuple[str, ...]
) -> tuple[QemuBlock, ...]:
    total = cursor.number(8)
    if total & RAM_FLAGS != RAM_MEM_SIZE or total > MAX_RAM_SIZE:
        cursor.offset -= 8
        raise cursor.refuse(f"RAM size is {total:#x}, expected its flag and at most 2^56 bytes")
    left = total & ~RAM_FLAGS
    blocks: list[QemuBlock] = []
    while left > 0:
        name, length = cursor.text(), cursor.number(8)
        if not name or not 0 < length <= left or len(blocks) == _MAX_BLOCKS:
            raise cursor.refuse(f"RAM block {name!r} has {length} bytes, {left} are left of all")
        if length % PAGE_SIZE:
            raise cursor.refuse(f"RAM block {name!r} is not made of whole pages")
        gpa = cursor.number(8) if IGNORE_SHARED in capabilities else None
        place = None
        if MAPPED_RAM in capabilities:
            place = _parse_place(file, cursor, length, may_lack=IGNORE_SHARED in capabilities)
        blocks.append(QemuBlock(name, length, gpa, place))
        left -= length
    return tuple(blocks)


def _parse_list_end(cursor: Cursor) -> bytes:
    # QEMU 8.1 flushes here and after each round, others only if pages have connections of their
    # own.
    words = b""
    while (word := cursor.number(8)) == RAM_FLUSH and len(words) < _MAX_FLUSHES * 8:
        words += struct.pack(">Q", word)
    if word != RAM_EOS:
        cursor.offset -= 8
        raise cursor.refuse("expected the end of the RAM block list")
    return words + struct.pack(">Q", word)


def _parse_place(file: Readable, cursor: Cursor, length: int, *, may_lack: bool) -> MappedPlace:
    version = cursor.number(4)
    place = MappedPlace(cursor.number(8), cursor.number(8), cursor.number(8))
    if version != 1:
        raise UnsupportedError(f"mapped-ram header is of version {version}", path=file.shown)
    if place.left_out and may_lack:
        return place
    problem = place.problem(length, cursor.offset)
    if problem is not None:
        raise cursor.refuse(problem)
    end = place.pages_offset + length
    if end > file.size:
        message = f"pages end at {end:#x}, the file at {file.size:#x}: the save was cut short"
        raise cursor.refuse(message)
    cursor.offset = end
    return place
