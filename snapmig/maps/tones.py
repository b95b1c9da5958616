"""Tones of a map: the look of each cell, and how much of the RAM has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from snapmig.geometry import PAGE_SIZE
from snapmig.maps.cells import BlockMap, Cell

__all__ = ("STRENGTHS", "Look", "Tone", "legend", "look_of")

STRENGTHS = 4
"""Steps from a cell in which few pages are of its tone to one in which all are."""


class Tone(Enum):
    """Kinds of cells, from the least to tell to the most."""

    ZERO = "zero, or a hole"
    SAME = "same as the parent's"
    SMALL = "compressed to 1/4 or less"
    MIDDLE = "compressed to 1/4 to 1/2"
    LARGE = "compressed to more than 1/2"
    RAW = "stored as it is"
    DELTA = "difference from the parent"
    UNCHANGED = "unchanged"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Look:
    """A cell's tone, and its strength from 1 to :data:`STRENGTHS`: the share of such pages."""

    tone: Tone
    strength: int = STRENGTHS


def look_of(cell: Cell) -> Look:
    """Return a cell's look: that of its changed or stored pages, if there is even one."""
    if cell.changed is not None:
        if cell.changed:
            return Look(Tone.CHANGED, _strength(cell.changed, cell.pages))
        return Look(Tone.UNCHANGED if cell.in_use else Tone.ZERO)
    if not cell.in_use:
        return Look(Tone.ZERO)
    shares = _shares(cell)
    same = shares.pop(Tone.SAME)
    if same == cell.in_use:
        return Look(Tone.SAME, _strength(same, cell.pages))
    most = max(shares, key=lambda tone: shares[tone])
    return Look(most, _strength(cell.in_use - same, cell.pages))


def legend(blocks: Iterable[BlockMap]) -> dict[Tone, int]:
    """Return the bytes of RAM in each tone that a map has, in the order of :class:`Tone`."""
    totals = dict.fromkeys(Tone, 0)
    for cell in (cell for block in blocks for cell in block.cells):
        for tone, pages in _legend_shares(cell).items():
            totals[tone] += pages * PAGE_SIZE
    return {tone: size for tone, size in totals.items() if size}


def _legend_shares(cell: Cell) -> dict[Tone, int]:
    if cell.changed is None:
        return {Tone.ZERO: cell.pages - cell.in_use, **_shares(cell)}
    # Pages that became zero are changed ones, too, so no more than the rest can be unchanged.
    unchanged = min(cell.in_use, cell.pages - cell.changed)
    zero = cell.pages - cell.changed - unchanged
    return {Tone.ZERO: zero, Tone.UNCHANGED: unchanged, Tone.CHANGED: cell.changed}


def _shares(cell: Cell) -> dict[Tone, int]:
    shares = {Tone.SAME: cell.same, Tone.RAW: cell.raw, Tone.DELTA: cell.delta}
    if cell.compressed:
        # Raw pages take all of their size, and differences share the packets of compressed pages.
        rest = max(cell.stored_size - cell.raw * PAGE_SIZE, 0)
        ratio = rest / ((cell.compressed + cell.delta) * PAGE_SIZE)
        tone = Tone.SMALL if ratio <= 0.25 else Tone.MIDDLE if ratio <= 0.5 else Tone.LARGE
        shares[tone] = cell.compressed
    return shares


def _strength(part: int, whole: int) -> int:
    return max(1, -(-part * STRENGTHS // whole))
