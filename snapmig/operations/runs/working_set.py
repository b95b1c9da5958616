"""The packets that a guest asks for first, kept in a file for its next start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from snapmig.errors import UsageError
from snapmig.geometry import Geometry
from snapmig.system.files import read_small
from snapmig.system.partial import write_file

__all__ = ("load_working_set", "write_working_set")

_LARGEST = 64 << 20
_Number = Annotated[int, Meta(ge=0, lt=1 << 62)]


class _Block(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    size: _Number


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    packet_size: _Number
    blocks: tuple[_Block, ...]
    packets: tuple[_Number, ...]
    snapmig_working_set: Literal[1] = 1


def load_working_set(path: str | os.PathLike[str], geometry: Geometry) -> tuple[int, ...] | None:
    """
    Return the packets in a file, None if there is no such file.

    :raises UsageError: it is none of these, or of a guest with other RAM blocks or packets
    """
    shown = os.fspath(path)
    try:
        raw = read_small(path, _LARGEST)
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(raw, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not a working set: {error}", path=shown) from error
    if (found.packet_size, found.blocks) != (geometry.packet_size, _blocks(geometry)):
        message = (
            "working set of a guest with other RAM blocks, or of a snapshot with other packets"
        )
        raise UsageError(message, path=shown)
    wrong = [number for number in found.packets if number >= geometry.packet_count]
    if wrong:
        message = f"has packet {wrong[0]}, the snapshot has {geometry.packet_count}"
        raise UsageError(message, path=shown)
    return tuple(dict.fromkeys(found.packets))


def write_working_set(
    path: str | os.PathLike[str], geometry: Geometry, packets: Sequence[int]
) -> None:
    """
    Write packets to a new file, in their order.

    :raises DestinationExistsError: there is a file meanwhile
    """
    content = _File(geometry.packet_size, _blocks(geometry), tuple(packets))
    write_file(Path(path), msgspec.json.encode(content) + b"\n")


def _blocks(geometry: Geometry) -> tuple[_Block, ...]:
    return tuple(_Block(block.name, block.size) for block in geometry.blocks)
