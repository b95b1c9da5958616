"""
All of a migration file that is not pages: configuration, RAM block list, device state.

From it each of QEMU's formats can be made again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from snapmig.errors import CorruptSnapshotError, UsageError
from snapmig.images.qemu.sections import (
    CAPABILITIES,
    IGNORE_SHARED,
    MAGIC,
    RAM_MEM_SIZE,
    SECTION_CONFIGURATION,
    SECTION_FOOTER,
    SECTION_SUBSECTION,
    VERSION,
)

__all__ = (
    "SHARED_STATE",
    "VM_STATE",
    "MappedPlace",
    "QemuBlock",
    "VmState",
    "attach_vm_state",
    "load_vm_state",
)

VM_STATE = "vmstate.json"
"""The attachment that a migration file with all RAM leaves, with two others."""
SHARED_STATE = "state"
"""The attachment that a running guest with shared RAM leaves: device state without that RAM."""


class MappedPlace(NamedTuple):
    """Where a mapped-ram file has a block: absolute offsets, zero both for a block left out."""

    page_size: int
    bitmap_offset: int
    pages_offset: int


class QemuBlock(NamedTuple):
    """
    A RAM block as the stream lists it.

    :param gpa: what x-ignore-shared says of its address: 0 for the tables of firmware as well, and
        only the lower part's for RAM on both sides of the gap below 4 GiB, so of use to QEMU alone
    """

    name: str
    length: int
    gpa: int | None = None
    mapped: MappedPlace | None = None


class VmState(NamedTuple):
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
        subsections = tuple(item for item in self.subsections if item[0] != CAPABILITIES)
        if capabilities:
            subsections = ((CAPABILITIES, 1, ""), *subsections)
        return self._replace(capabilities=capabilities, subsections=subsections)

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
        """Return the size of all blocks as the payload starts with it."""
        return struct.pack(">Q", sum(block.length for block in self.blocks) | RAM_MEM_SIZE)

    def block_entry(self, block: QemuBlock) -> bytes:
        """Return what the payload says of a block before anything of mapped-ram."""
        name = block.name.encode()
        entry = bytes([len(name)]) + name + struct.pack(">Q", block.length)
        if IGNORE_SHARED in self.capabilities:
            entry += struct.pack(">Q", block.gpa or 0)
        return entry


def attach_vm_state(state: VmState) -> dict[str, bytes]:
    """Return a state as attachments, from which :func:`load_vm_state` makes it again."""
    facts = state._asdict()
    del facts["before"], facts["after"]
    facts["ram_header"] = state.ram_header.hex()
    facts["blocks"] = [_block_facts(block) for block in state.blocks]
    return {
        VM_STATE: json.dumps(facts).encode(),
        "vmstate.before": state.before,
        "vmstate.after": state.after,
    }


def _block_facts(block: QemuBlock) -> dict[str, Any]:
    mapped = None if block.mapped is None else block.mapped._asdict()
    return {**block._asdict(), "mapped": mapped}


def load_vm_state(attachments: Mapping[str, bytes], format_name: str) -> VmState:
    """
    Return the state that a snapshot keeps.

    :raises UsageError: it was not made of anything that has one
    :raises CorruptSnapshotError: what it keeps is not a state
    """
    if VM_STATE not in attachments and SHARED_STATE in attachments:
        message = (
            f"{format_name} needs the pages of all RAM blocks apart from QEMU's device state, and "
            "in a snapshot of shared memory those of firmware and video memory are inside of it: "
            "restore it to qemu-stream or libvirt"
        )
        raise UsageError(message)
    if VM_STATE not in attachments:
        message = f"{format_name} needs QEMU's device state, and this snapshot has none"
        raise UsageError(message)
    try:
        facts = json.loads(attachments[VM_STATE])
        return _state_of(facts, attachments["vmstate.before"], attachments["vmstate.after"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"attachment {VM_STATE} is not what {format_name} needs: {error!r}"
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


def _pack_capabilities(names: tuple[str, ...]) -> bytes:
    parts = [struct.pack(">I", len(names))]
    parts += [bytes([len(name)]) + name.encode() for name in names]
    return b"".join(parts)
