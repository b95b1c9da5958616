"""
A migration file's state as attachments of a snapshot, and back.

A snapshot's author may have written anything there, so a state is accepted only if a stream written
from it parses as the same state again, and if it lists the snapshot's RAM blocks.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.images.qemu.kept_state import (
    AFTER,
    BEFORE,
    FACTS,
    MAX_STATE_SIZE,
    SHARED_STATE,
    parsed_facts,
    refused,
)
from snapmig.images.qemu.parse import parse_vm_state
from snapmig.images.qemu.sections import (
    CAPABILITIES,
    IGNORE_SHARED,
    MAPPED_RAM,
    SECTION_BYTES,
)
from snapmig.images.qemu.state import PLACE_SIZE, MappedPlace, QemuBlock, VmState

if TYPE_CHECKING:
    from snapmig.images.qemu.facts import Facts

__all__ = ("BytesFile", "attach_vm_state", "check_after", "load_vm_state")

_MAX_GAP = 1 << 30
"""Bytes between the parts of a mapped-ram file; QEMU leaves less than a MiB."""


def attach_vm_state(state: VmState) -> dict[str, bytes]:
    """Return a state as attachments for :func:`load_vm_state`."""
    facts = state._asdict()
    del facts["before"], facts["after"]
    facts["ram_header"] = state.ram_header.hex()
    facts["list_end"] = state.list_end.hex()
    facts["blocks"] = [_block_facts(block) for block in state.blocks]
    return {FACTS: json.dumps(facts).encode(), BEFORE: state.before, AFTER: state.after}


def load_vm_state(
    attachments: Mapping[str, bytes], format_name: str, blocks: Sequence[RamBlock]
) -> VmState:
    """
    Return the state kept in a snapshot.

    :raises UsageError: the snapshot's source had no such state
    :raises CorruptSnapshotError: the attachments are not a state of these RAM blocks
    """
    if FACTS not in attachments and SHARED_STATE in attachments:
        message = (
            f"{format_name} needs the pages of all RAM blocks apart from QEMU's device state, and "
            "in a snapshot of shared memory those of firmware and video memory are inside of it: "
            "restore it to qemu-stream or libvirt"
        )
        raise UsageError(message)
    if FACTS not in attachments:
        message = f"{format_name} needs QEMU's device state, and this snapshot has none"
        raise UsageError(message)
    state = _state_of(parsed_facts(attachments[FACTS]), attachments)
    _check_stream(state)
    _check_blocks(state, blocks)
    _check_places(state, {block.name for block in blocks})
    check_after(state, AFTER)
    return state


def _block_facts(block: QemuBlock) -> dict[str, Any]:
    mapped = None if block.mapped is None else block.mapped._asdict()
    return {"name": block.name, "length": block.length, "gpa": block.gpa, "mapped": mapped}


def _state_of(facts: Facts, attachments: Mapping[str, bytes]) -> VmState:
    blocks = tuple(
        QemuBlock(
            item.name,
            item.length,
            item.gpa,
            None if item.mapped is None else MappedPlace(*item.mapped.fields()),
        )
        for item in facts.blocks
    )
    try:
        return VmState(
            start=facts.start,
            machine=facts.machine,
            capabilities=facts.capabilities,
            subsections=facts.subsections,
            ram_header=bytes.fromhex(facts.ram_header),
            blocks=blocks,
            before=attachments[BEFORE],
            list_end=bytes.fromhex(facts.list_end),
            after=attachments[AFTER],
        )
    except KeyError as error:
        raise refused("missing, though there is a vmstate.json", error.args[0]) from error
    except ValueError as error:
        raise refused(f"ram_header and list_end must be hexadecimal: {error}") from error


def _check_stream(state: VmState) -> None:
    # The state must survive writing and parsing: then names, lengths and numbers fit.
    names = state.capabilities
    if len(set(names)) < len(names) or (
        names and all(name != CAPABILITIES for name, *_ in state.subsections)
    ):
        raise refused("capabilities are listed twice, or have no place in the configuration")
    if state.before and state.before[:1] not in SECTION_BYTES:
        raise refused(f"section type is 0x{state.before[:1].hex()} before RAM", BEFORE)
    plain = state.classic()
    try:
        file = BytesFile(plain.opening(), FACTS)
        found, end = parse_vm_state(file)
    except (SnapmigError, ValueError, OverflowError, struct.error) as error:
        words = error.message if isinstance(error, SnapmigError) else str(error)
        raise refused(f"not the start of a stream: {words}") from error
    if end != file.size or found != plain._replace(start=0, after=b""):
        raise refused("not the start of a stream: as one it reads otherwise")


class BytesFile:
    """An attachment's bytes, readable like a file."""

    def __init__(self, content: bytes, shown: str) -> None:
        self._content = content
        self.shown = shown

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self._content)

    def read(self, offset: int, length: int) -> bytes:
        """
        Return some of its bytes.

        :raises SnapmigError: it ends before them
        """
        found = self._content[offset : offset + length]
        if len(found) < length:
            raise SnapmigError(f"it ends after {self.size} bytes")
        return found


def _check_blocks(state: VmState, blocks: Sequence[RamBlock]) -> None:
    known = {block.name for block in blocks}
    listed = [(block.name, block.length) for block in state.blocks if block.name in known]
    if listed != [(block.name, block.size) for block in blocks]:
        raise refused("its RAM blocks are not those of the snapshot")
    missing = [block.name for block in state.blocks if block.name not in known]
    if missing and IGNORE_SHARED not in state.capabilities:
        raise refused(f"RAM block {missing[0]!r} is not in the snapshot, and was not left out")


def _check_places(state: VmState, known: set[str]) -> None:
    mapped = MAPPED_RAM in state.capabilities
    at = state.start + len(state.head() + state.total())
    for block in state.blocks:
        place = block.mapped
        if (place is not None) != mapped:
            raise refused(
                f"RAM block {block.name!r} has a place in a mapped-ram file: {not mapped}"
            )
        at += len(state.block_entry(block)) + PLACE_SIZE
        if place is None or (place.left_out and block.name not in known):
            continue
        problem = place.problem(block.length, at)
        if problem is None and place.pages_offset - at > block.length + _MAX_GAP:
            problem = f"pages are at {place.pages_offset:#x}, expected soon after {at:#x}"
        if problem is not None:
            raise refused(f"RAM block {block.name!r}: {problem}")
        at = place.pages_offset + block.length


def check_after(state: VmState, name: str) -> None:
    """
    Check the part of a state after its list of RAM blocks.

    :param name: the attachment with this part
    :raises CorruptSnapshotError: it is impossible there, or has no end
    """
    after = state.after
    if len(after) > MAX_STATE_SIZE:
        raise refused(f"{len(after)} bytes, expected at most {MAX_STATE_SIZE}", name)
    if state.end_mark is None:
        raise refused("has no end mark", name)
    first = 5 if state.has_footers else 0
    if first and after[1:5] != state.ram_header[1:5]:
        raise refused("starts with the footer of another section than RAM", name)
    if after[first : first + 1] not in SECTION_BYTES:
        found = after[first : first + 1].hex()
        raise refused(f"section type is 0x{found} where RAM goes on", name)
