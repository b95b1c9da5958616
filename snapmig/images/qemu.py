"""
QEMU's migration stream around the pages: configuration, RAM block list, device state.

What QEMU does is its own source: migration/savevm.c (sections, configuration), migration/ram.c
(the RAM section's block list and flags), docs/devel/migration/mapped-ram.rst. All integers of the
stream are big-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError, UsageError
from snapmig.geometry import MAX_RAM_SIZE
from snapmig.images.file import ImageFile

__all__ = (
    "MAPPED_RAM",
    "Cursor",
    "MappedPlace",
    "QemuBlock",
    "VmState",
    "attach_vm_state",
    "load_vm_state",
    "parse_vm_state",
    "skip_full",
)

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
_CAPABILITIES = "configuration/capabilities"
_SUBSECTION_SIZES = {"configuration/target-page-bits": 4, "configuration/uuid": 16}

_SECTIONS = (SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL, SECTION_COMMAND)
_MAX_EARLY_STATE = 64 << 20

_MAX_BLOCKS = 4096
_MAX_CAPABILITIES = 256
_SEARCH_BYTES = 64 << 20
"""How far behind the configuration the RAM section is looked for."""


@dataclass(frozen=True, slots=True)
class MappedPlace:
    """Where a mapped-ram file has a block: absolute offsets, zero both for a block left out."""

    page_size: int
    bitmap_offset: int
    pages_offset: int


@dataclass(frozen=True, slots=True)
class QemuBlock:
    """
    A RAM block as the stream lists it.

    :param gpa: what x-ignore-shared says of its address: 0 for the tables of firmware as well, and
        only the lower part's for RAM on both sides of the gap below 4 GiB, so of use to QEMU alone
    """

    name: str
    length: int
    gpa: int | None = None
    mapped: MappedPlace | None = None


@dataclass(frozen=True)
class VmState:
    """
    All of a migration file that is not pages.

    :param start: the offset of the stream in its file
    :param subsections: of the configuration: name, version and body in hexadecimal; that of the
        capabilities has an empty body, for its place
    :param ram_header: the RAM section's bytes before its payload
    :param before: sections between the configuration and RAM
    :param after: everything that follows the RAM section's first payload
    """

    start: int
    machine: str
    capabilities: tuple[str, ...]
    subsections: tuple[tuple[str, int, str], ...]
    ram_header: bytes
    blocks: tuple[QemuBlock, ...]
    before: bytes
    after: bytes

    @property
    def section_id(self) -> int:
        """The number of the RAM section."""
        return int.from_bytes(self.ram_header[1:5])

    @property
    def has_footers(self) -> bool:
        """Whether sections end in a footer, as they do but for very old machine types."""
        return self.after[:1] == bytes([SECTION_FOOTER])

    def with_capability(self, name: str, *, on: bool) -> VmState:
        """Return the same state with a capability listed or not."""
        others = tuple(known for known in self.capabilities if known != name)
        capabilities = (*others, name) if on else others
        subsections = tuple(item for item in self.subsections if item[0] != _CAPABILITIES)
        if capabilities:
            subsections = ((_CAPABILITIES, 1, ""), *subsections)
        return replace(self, capabilities=capabilities, subsections=subsections)

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
                if name == _CAPABILITIES
                else bytes.fromhex(body)
            )
        return b"".join([*parts, self.before, self.ram_header])

    def total(self) -> bytes:
        """Return the size of all blocks as the payload starts with it."""
        return struct.pack(">Q", sum(block.length for block in self.blocks) | RAM_MEM_SIZE)

    def block_entry(self, block: QemuBlock) -> bytes:
        """Return what the payload says of a block before anything of mapped-ram."""
        name = block.name.encode()
        entry = bytes([len(name)]) + name + struct.pack(">Q", block.length)
        if IGNORE_SHARED in self.capabilities:
            entry += struct.pack(">Q", block.gpa or 0)
        return entry


class Cursor:
    """
    Reads a stream's fields one after the other.

    :param base: added to offsets in messages
    """

    def __init__(self, file: ImageFile, offset: int) -> None:
        self._file = file
        self.offset = offset

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
        return self._decode(self.take(self.number(1)))

    def refuse(self, words: str) -> SnapmigError:
        """Return an error about this place."""
        return SnapmigError(words, path=self._file.shown, offset=self.offset)

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.refuse(f"name {raw!r} is not text") from error


def parse_vm_state(file: ImageFile, start: int = 0) -> tuple[VmState, int]:
    """
    Return a stream's state without ``after``, and the offset at which that starts.

    :param start: where the stream starts in the file
    :raises SnapmigError: not a stream, or a field that can't be
    :raises UnsupportedError: a part of the configuration that is not known here
    """
    cursor = Cursor(file, start)
    if cursor.take(4) != MAGIC or cursor.number(4) != VERSION:
        raise cursor.refuse(f"not a QEMU migration stream of version {VERSION}")
    machine, capabilities, subsections = _parse_configuration(cursor)
    configured = cursor.offset
    header = _find_ram(file, cursor)
    before = file.read(configured, cursor.offset - len(header) - configured)
    blocks = _parse_blocks(file, cursor, capabilities)
    state = VmState(start, machine, capabilities, subsections, header, blocks, before, b"")
    if cursor.number(8) & RAM_FLAGS & ~0x200 != RAM_EOS:  # 0x200: a flush of multifd
        cursor.offset -= 8
        raise cursor.refuse("expected the end of the RAM block list")
    return state, cursor.offset


def attach_vm_state(state: VmState) -> dict[str, bytes]:
    """Return a state as attachments, from which :func:`load_vm_state` makes it again."""
    facts = asdict(state)
    del facts["before"], facts["after"]
    facts["ram_header"] = state.ram_header.hex()
    return {
        "vmstate.json": json.dumps(facts).encode(),
        "vmstate.before": state.before,
        "vmstate.after": state.after,
    }


def load_vm_state(attachments: Mapping[str, bytes], format_name: str) -> VmState:
    """
    Return the state that a snapshot keeps.

    :raises UsageError: it was not made of anything that has one
    :raises CorruptSnapshotError: what it keeps is not a state
    """
    if "vmstate.json" not in attachments:
        message = f"{format_name} needs QEMU's device state, and this snapshot has none"
        raise UsageError(message)
    try:
        facts = json.loads(attachments["vmstate.json"])
        return _state_of(facts, attachments["vmstate.before"], attachments["vmstate.after"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"attachment vmstate.json is not what {format_name} needs: {error!r}"
        raise CorruptSnapshotError(message) from error


def _state_of(facts: dict[str, Any], before: bytes, after: bytes) -> VmState:
    return VmState(
        start=facts["start"],
        machine=facts["machine"],
        capabilities=tuple(facts["capabilities"]),
        subsections=tuple((name, version, body) for name, version, body in facts["subsections"]),
        ram_header=bytes.fromhex(facts["ram_header"]),
        blocks=tuple(
            QemuBlock(
                item["name"],
                item["length"],
                item["gpa"],
                None if item["mapped"] is None else MappedPlace(**item["mapped"]),
            )
            for item in facts["blocks"]
        ),
        before=before,
        after=after,
    )


def _parse_configuration(
    cursor: Cursor,
) -> tuple[str, tuple[str, ...], tuple[tuple[str, int, str], ...]]:
    if cursor.number(1) != SECTION_CONFIGURATION:
        cursor.offset -= 1
        raise cursor.refuse("expected the configuration section")
    length = cursor.number(4)
    if not 0 < length < 256:
        raise cursor.refuse(f"machine type has {length} bytes, expected 1 to 255")
    machine = cursor.take(length).decode("utf-8", "replace")
    capabilities: tuple[str, ...] = ()
    subsections = []
    while cursor.number(1) == SECTION_SUBSECTION:
        name, version = cursor.text(), cursor.number(4)
        body = b""
        if name == _CAPABILITIES:
            capabilities = _parse_capabilities(cursor)
        elif name in _SUBSECTION_SIZES:
            body = cursor.take(_SUBSECTION_SIZES[name])
        else:
            message = f"configuration has {name!r}, which is not known here"
            raise UnsupportedError(message, offset=cursor.offset)
        subsections.append((name, version, body.hex()))
    cursor.offset -= 1
    return machine, capabilities, tuple(subsections)


def _parse_capabilities(cursor: Cursor) -> tuple[str, ...]:
    count = cursor.number(4)
    if count > _MAX_CAPABILITIES:
        raise cursor.refuse(f"{count} capabilities, expected at most {_MAX_CAPABILITIES}")
    return tuple(cursor.text() for _ in range(count))


def _pack_capabilities(names: tuple[str, ...]) -> bytes:
    parts = [struct.pack(">I", len(names))]
    parts += [bytes([len(name)]) + name.encode() for name in names]
    return b"".join(parts)


def _find_ram(file: ImageFile, cursor: Cursor) -> bytes:
    # Usually it is next. Some devices put their state before it, whose length only QEMU knows.
    tail = b"\x03ram" + struct.pack(">II", 0, 4)
    length = 5 + len(tail)
    window = file.read(cursor.offset, min(_SEARCH_BYTES, file.size - cursor.offset))
    at = window.find(tail)
    while at >= 0:
        if at >= 5 and window[at - 5] == SECTION_START:
            cursor.offset += at - 5 + length
            return window[at - 5 : at + len(tail)]
        at = window.find(tail, at + 1)
    raise cursor.refuse("there is no RAM section of version 4")


def _parse_blocks(
    file: ImageFile, cursor: Cursor, capabilities: tuple[str, ...]
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
        gpa = cursor.number(8) if IGNORE_SHARED in capabilities else None
        place = None
        if MAPPED_RAM in capabilities:
            place = _parse_place(file, cursor, length)
        blocks.append(QemuBlock(name, length, gpa, place))
        left -= length
    return tuple(blocks)


def _parse_place(file: ImageFile, cursor: Cursor, length: int) -> MappedPlace:
    version = cursor.number(4)
    place = MappedPlace(cursor.number(8), cursor.number(8), cursor.number(8))
    if version != 1:
        raise UnsupportedError(f"mapped-ram header is of version {version}", path=file.shown)
    if place.bitmap_offset == place.pages_offset == 0:  # left out, as x-ignore-shared asks
        return place
    size = place.page_size
    if size < 4096 or size & (size - 1) or length % size:
        raise cursor.refuse(f"block of {length} bytes has pages of {size}")
    bitmap_end = place.bitmap_offset + bitmap_size(length, size)
    end = place.pages_offset + length
    if not cursor.offset <= place.bitmap_offset < bitmap_end <= place.pages_offset:
        message = f"bitmap is at {place.bitmap_offset:#x}, pages at {place.pages_offset:#x}"
        raise cursor.refuse(message)
    if end > file.size:
        message = f"pages end at {end:#x}, the file at {file.size:#x}: the save was cut short"
        raise cursor.refuse(message)
    cursor.offset = end
    return place


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
