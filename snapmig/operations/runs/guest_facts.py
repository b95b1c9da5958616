"""
The attachment ``guest.json``: facts about the guest's QEMU.

It is untrusted input, so each value has a type and limits, and the RAM blocks must be the
snapshot's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import msgspec

from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import MAX_RAM_SIZE, RamBlock

if TYPE_CHECKING:  # asyncio with it takes 50 ms
    from snapmig.guests.guest import GuestFacts

__all__ = ("FACTS", "SavedFacts", "describe", "parse_facts")

FACTS = "guest.json"

_Text = Annotated[str, msgspec.Meta(max_length=1 << 20, pattern=r"^[^\0]*\Z")]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}\Z")]


class _Memory(msgspec.Struct, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    size: Annotated[int, msgspec.Meta(gt=0, le=MAX_RAM_SIZE)]


class SavedFacts(msgspec.Struct, frozen=True):
    """
    Facts about a guest when it was saved.

    :ivar machine: its machine type, as ``-machine`` takes it
    :ivar command_line: the program and its arguments; empty if they could not be read
    """

    machine: _Name
    qemu_version: _Name
    command_line: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=1 << 16)]
    memory: Annotated[tuple[_Memory, ...], msgspec.Meta(max_length=4096)]


def describe(facts: GuestFacts) -> bytes:
    """Return a guest's facts as an attachment's contents."""
    return json.dumps(asdict(facts), indent=1).encode()


def parse_facts(raw: bytes, blocks: Sequence[RamBlock], *, complete: bool) -> SavedFacts:
    """
    Return the facts in an attachment.

    :param blocks: the snapshot's
    :param complete: the facts list them all; if QEMU wrote the guest to a file, those of firmware
        and devices are missing
    :raises CorruptSnapshotError: not written by :func:`describe` for such a guest
    """
    try:
        # Not by msgspec alone: a command line that is not UTF-8 has lone surrogates here.
        facts = msgspec.convert(json.loads(raw), SavedFacts)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise _refuse(str(error)) from error
    known = {item.name: item.size for item in facts.memory}
    if len(known) != len(facts.memory):
        raise _refuse("it has two RAM blocks of one name")
    for block in blocks:
        found = known.get(block.name, 0 if complete else block.size)
        if found != block.size:
            message = f"RAM block {block.name!r} has {found} bytes there, {block.size} here"
            raise _refuse(message)
    return facts


def _refuse(message: str) -> CorruptSnapshotError:
    return CorruptSnapshotError(f"attachment {FACTS} was not written by snapmig: {message}")
