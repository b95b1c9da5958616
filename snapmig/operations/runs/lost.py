"""Guest RAM that a snapshot's damage takes away, as ranges with their addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from snapmig.attachments import StoredAttachment
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, UnsupportedError, UsageError
from snapmig.geometry import PAGE_SIZE, PacketPlace
from snapmig.operations.runs.read import Reading
from snapmig.pages import Mask, runs

__all__ = ("Losses", "LostRange", "check_keep_going", "damaged_ranges", "losses_of")

MAX_PROBLEMS = 100
MAX_RANGES = 1000
"""Ranges that a result lists; of more only the number is given."""


@dataclass(frozen=True, slots=True)
class LostRange:
    """
    A part of guest RAM.

    :param block: name of its RAM block
    :param offset: of its first byte in the block
    :param gpa: guest physical address of that byte, None if unknown
    :param size: bytes
    """

    block: str
    offset: int
    gpa: int | None
    size: int


class Losses(NamedTuple):
    """
    Damage that a restore went past.

    :param lost_pages: pages whose contents are unknown
    :param lost_ranges: number of ranges they are in, the first of them in ``lost``
    :param lost_attachments: names of damaged attachments
    :param problems: a sentence for each problem, as far as described
    :param exit_code: 0, or that of a damaged snapshot
    """

    lost_pages: int = 0
    lost_ranges: int = 0
    lost: tuple[LostRange, ...] = ()
    lost_attachments: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    exit_code: int = 0


def check_keep_going(*, keep_going: bool, to_guest: bool) -> None:
    """
    Refuse to keep going where a guest would run with what is left of its memory.

    :raises UsageError: it would
    """
    if keep_going and to_guest:
        raise UsageError(
            "a guest can't run on with zeros in place of lost memory: keep-going restores to a "
            "file, without for-qemu"
        )


def losses_of(reading: Reading) -> Losses:
    """Return what a restore that keeps going has found damaged; attachments are read for it."""
    source, problems = reading.snapshot, list(reading.problems)
    damaged = np.zeros(0, np.bool_) if reading.damaged is None else reading.damaged
    pages, count, ranges = damaged_ranges(source, damaged)
    names = []
    for entry in source.attachments:
        try:
            StoredAttachment(source, entry).check()
        except (CorruptSnapshotError, UnsupportedError) as error:
            names.append(entry.name)
            problems.append(error)
    words = tuple(str(error) for error in problems[:MAX_PROBLEMS])
    code = CorruptSnapshotError.exit_code if problems else 0
    return Losses(pages, count, ranges, tuple(names), words, code)


def damaged_ranges(
    source: SnapshotFile, damaged: Mask, *, whole: bool = False
) -> tuple[int, int, tuple[LostRange, ...]]:
    """
    Return the number of pages in damaged packets, and of their ranges, and the first of these.

    :param damaged: true for each damaged packet
    :param whole: count zero pages, too, that a sound record tells of
    """
    pages, count = 0, 0
    kept: list[LostRange] = []
    for found in _ranges(source, damaged, whole=whole):
        pages += -(-found.size // PAGE_SIZE)
        count += 1
        if len(kept) < MAX_RANGES:
            kept.append(found)
    return pages, count, tuple(kept)


def _ranges(source: SnapshotFile, damaged: Mask, *, whole: bool) -> Iterator[LostRange]:
    # Ranges that touch become one, as far as their addresses go on.
    blocks = source.geometry.blocks
    for number, start, stop in _joined(_parts(source, damaged, whole=whole)):
        block = blocks[number]
        for first, end, gpa in block.by_address(start, stop):
            yield LostRange(block.name, first, gpa, end - first)


def _joined(parts: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    held: tuple[int, int, int] | None = None
    for block, start, stop in parts:
        if held is not None and held[0] == block and held[2] == start:
            held = block, held[1], stop
            continue
        if held is not None:
            yield held
        held = block, start, stop
    if held is not None:
        yield held


def _parts(source: SnapshotFile, damaged: Mask, *, whole: bool) -> Iterator[tuple[int, int, int]]:
    # Block, and start and end in it, of the lost pages of each damaged packet.
    geometry = source.geometry
    for number in np.flatnonzero(damaged):
        place = geometry.place(int(number))
        start = place.ram_offset - geometry.block_start(place.block)
        mask = None if whole else _pages_in_use(source, place)
        if mask is None:
            yield place.block, start, start + place.length
            continue
        for first, count in runs(mask):
            end = min((first + count) * PAGE_SIZE, place.length)
            yield place.block, start + first * PAGE_SIZE, start + end


def _pages_in_use(source: SnapshotFile, place: PacketPlace) -> Mask | None:
    # None if the record is damaged, too.
    try:
        return source.packet(place).in_use[: place.pages]
    except (CorruptSnapshotError, UnsupportedError):
        return None
