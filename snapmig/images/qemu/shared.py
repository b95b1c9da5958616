"""
Streams with all RAM, made from guests saved out of shared memory.

QEMU leaves shared RAM out of such a guest's device state (capability x-ignore-shared), and includes
the pages of all other blocks, such as firmware and video memory. With the shared blocks' pages
inserted before those, and without the capability, it becomes the stream of the whole guest.
"""

from __future__ import annotations

from dataclasses import replace

from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.geometry import RamBlock
from snapmig.images.plan import Content
from snapmig.images.qemu.attachments import BytesFile, check_after, load_vm_state
from snapmig.images.qemu.kept_state import FACTS, SHARED_STATE
from snapmig.images.qemu.parse import parse_vm_state
from snapmig.images.qemu.sections import IGNORE_SHARED, MAPPED_RAM
from snapmig.images.qemu.state import VmState

__all__ = ("whole_stream",)

_NOT_A_STATE = f"attachment {SHARED_STATE} is not the device state of a guest with shared memory"


def whole_stream(content: Content, format_name: str) -> tuple[Content, VmState]:
    """
    Return a snapshot's RAM and state, ready to be written as a classic stream.

    RAM blocks have their names in the stream.

    :raises UsageError: the snapshot has no device state of QEMU
    :raises CorruptSnapshotError: its attachments are not a state, or don't fit its RAM
    """
    attachments = content.attachments
    if FACTS in attachments or SHARED_STATE not in attachments:
        return content, load_vm_state(attachments, format_name, content.blocks)
    state = _parse(attachments[SHARED_STATE])
    lengths = {block.name: block.length for block in state.blocks}
    blocks = tuple(_named(block, lengths) for block in content.blocks)
    return content._replace(blocks=blocks), state.with_capability(IGNORE_SHARED, on=False)


def _parse(raw: bytes) -> VmState:
    try:
        state, offset = parse_vm_state(BytesFile(raw, SHARED_STATE))
    except SnapmigError as error:
        raise CorruptSnapshotError(f"{_NOT_A_STATE}: {error.message}") from error
    if IGNORE_SHARED not in state.capabilities or MAPPED_RAM in state.capabilities:
        raise CorruptSnapshotError(f"{_NOT_A_STATE}: its capabilities are {state.capabilities}")
    state = state._replace(after=raw[offset:])
    check_after(state, SHARED_STATE)
    return state


def _named(block: RamBlock, lengths: dict[str, int]) -> RamBlock:
    # Machine types before 4.0 name a backend's block by its path.
    for name in (block.name, f"/objects/{block.name}"):
        if lengths.get(name) == block.size:
            return replace(block, name=name)
    message = f"{_NOT_A_STATE}: it has no RAM block {block.name!r} of {block.size} bytes"
    raise CorruptSnapshotError(message)
