"""
Names of a migration file's state among the attachments of a snapshot, and its list of RAM blocks.

Every verb asks for these. The parser of such a state is imported with one only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import RamBlock

if TYPE_CHECKING:
    from snapmig.images.qemu.facts import Facts

__all__ = (
    "AFTER",
    "BEFORE",
    "FACTS",
    "MAX_FACTS_SIZE",
    "MAX_STATE_SIZE",
    "SHARED_STATE",
    "left_out",
    "parsed_facts",
    "refused",
)

SHARED_STATE = "state"
"""Used for running guests with shared RAM instead: device state without that RAM."""
FACTS = "vmstate.json"
BEFORE = "vmstate.before"
AFTER = "vmstate.after"

MAX_STATE_SIZE = 256 << 20
"""Bytes of device state."""
MAX_FACTS_SIZE = 16 << 20
"""Bytes; 4096 RAM blocks with names of 255 bytes, each escaped, take less."""


def left_out(attachments: Mapping[str, bytes], blocks: Sequence[RamBlock]) -> tuple[RamBlock, ...]:
    """
    Return the RAM blocks listed in a migration file but not contained, as with x-ignore-shared.

    :param attachments: of the file, or of a snapshot of it
    :param blocks: the blocks contained
    :raises CorruptSnapshotError: the attachments are not a state
    """
    if FACTS not in attachments:
        return ()
    known = {block.name for block in blocks}
    listed = parsed_facts(attachments[FACTS]).blocks
    return tuple(RamBlock(item.name, item.length) for item in listed if item.name not in known)


def parsed_facts(raw: bytes) -> Facts:
    """
    Return the facts of a state.

    :raises CorruptSnapshotError: they are none
    """
    from snapmig.images.qemu.facts import parse_facts  # noqa: PLC0415 - its import takes 15 ms

    try:
        return parse_facts(raw)
    except ValueError as error:
        raise refused(str(error)) from error


def refused(words: str, name: str = FACTS) -> CorruptSnapshotError:
    """Return the error for an attachment that is no part of a state."""
    return CorruptSnapshotError(f"attachment 'source/{name}': {words}")
