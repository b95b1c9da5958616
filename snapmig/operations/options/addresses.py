"""Guest physical addresses given by the user: ``BLOCK[@OFFSET]=GPA``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from snapmig.architectures import Architecture, find_architecture
from snapmig.errors import UsageError
from snapmig.geometry import RamBlock, RamPiece, block_problem
from snapmig.units import parse_size

__all__ = (
    "GivenAddress",
    "Placing",
    "check_blocks",
    "inherit_pieces",
    "parse_addresses",
    "parse_placing",
    "place_blocks",
)


class GivenAddress(NamedTuple):
    """
    The guest physical address of a RAM block, or of a part of it.

    :param place: the block's name, or name, ``@`` and an offset in it
    """

    place: str
    gpa: int


class Placing(NamedTuple):
    """
    The guest's RAM layout given by the user, instead of the snapshot's own.

    :param addresses: guest physical addresses
    :param architecture: the guest's processors
    """

    addresses: Sequence[GivenAddress] = ()
    architecture: Architecture | None = None


def parse_placing(address: Mapping[str, int | str] | Sequence[str], arch: str | None) -> Placing:
    """
    Return a RAM layout from the arguments of a verb.

    :raises UsageError: an invalid address or architecture
    """
    return Placing(parse_addresses(address), None if arch is None else find_architecture(arch))


def parse_addresses(given: Mapping[str, int | str] | Sequence[str]) -> tuple[GivenAddress, ...]:
    """
    Parse ``BLOCK[@OFFSET]=GPA`` texts, or a mapping of places to addresses.

    Numbers are decimal, hexadecimal after ``0x``, or have a unit, as in ``4G``.

    :raises UsageError: not of that form
    """
    if isinstance(given, Mapping):
        return tuple(GivenAddress(place, _number(gpa)) for place, gpa in given.items())
    found = []
    for text in given:
        place, equals, gpa = text.rpartition("=")
        if not place or not equals:
            message = f"address is {text!r}, expected BLOCK=GPA or BLOCK@OFFSET=GPA"
            raise UsageError(message)
        found.append(GivenAddress(place, _number(gpa)))
    return tuple(found)


def place_blocks(blocks: Sequence[RamBlock], given: Sequence[GivenAddress]) -> tuple[RamBlock, ...]:
    """
    Return blocks with given addresses in place of known ones.

    A part extends to the next given part of its block.

    :raises UsageError: no such block, an offset outside it, or overlapping addresses
    """
    starts: dict[str, dict[int, int]] = {}
    for place, gpa in given:
        name, offset = _find(blocks, place)
        if offset in starts.setdefault(name, {}):
            raise UsageError(f"RAM block {name!r} is given two addresses from {offset:#x} on")
        starts[name][offset] = gpa
    placed = tuple(
        replace(block, pieces=_pieces(block, starts[block.name])) if block.name in starts else block
        for block in blocks
    )
    if given:
        check_blocks(placed)
    return placed


def inherit_pieces(blocks: Sequence[RamBlock], parent: Sequence[RamBlock]) -> tuple[RamBlock, ...]:
    """Return blocks with the parent's pieces where they have none of their own."""
    if any(block.pieces for block in blocks):
        return tuple(blocks)
    pieces = {block.name: block.pieces for block in parent}
    return tuple(replace(block, pieces=pieces.get(block.name, ())) for block in blocks)


def check_blocks(blocks: tuple[RamBlock, ...]) -> None:
    """
    Refuse blocks that can't belong to one guest.

    :raises UsageError: they can't
    """
    if problem := block_problem(blocks):
        raise UsageError(problem)


def _find(blocks: Iterable[RamBlock], place: str) -> tuple[str, int]:
    # A name may have an "@" of its own: ELF's blocks do.
    names = [block.name for block in blocks]
    if place in names:
        return place, 0
    name, _, offset = place.rpartition("@")
    if name not in names:
        message = f"there is no RAM block {place!r} to give an address, there are "
        raise UsageError(message + ", ".join(map(repr, names[:20])))
    return name, _number(offset)


def _pieces(block: RamBlock, starts: Mapping[int, int]) -> tuple[RamPiece, ...]:
    offsets = sorted(starts)
    ends = [*offsets[1:], block.size]
    return tuple(
        RamPiece(offset, end - offset, starts[offset])
        for offset, end in zip(offsets, ends, strict=True)
    )


def _number(text: int | str) -> int:
    if isinstance(text, int):
        return text
    try:
        return int(text, 16) if text.lower().startswith("0x") else parse_size(text)
    except (ValueError, UsageError) as error:
        message = f"address or offset is {text!r}, expected a number such as 0x40000000 or 4G"
        raise UsageError(message) from error
