"""A map as lines for a terminal, in colours or in letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snapmig.maps.cells import Cell, MemoryMap
from snapmig.maps.palette import PAINTS
from snapmig.maps.places import on_curve, rows
from snapmig.maps.tones import Tone, look_of
from snapmig.printable import printable
from snapmig.units import format_size

__all__ = ("to_lines",)

_LABELS = 14
_RESET = "\x1b[0m"
_HALF = "\u2580"
"""The upper half of a character: with a background it shows two cells, one above the other."""

Line = Sequence[Cell | None]


def to_lines(made: MemoryMap, width: int, *, colours: bool, curve: bool = False) -> Iterator[str]:
    """
    Yield the lines of a map, names in them made printable.

    :param width: of the terminal, in characters
    :param colours: two cells in a character by their colours; otherwise a letter for each
    :param curve: along a Hilbert curve instead of in rows
    """
    columns = max(8, min(width, 200) - _LABELS)
    for block in made.blocks:
        yield f"{printable(block.block)}, {format_size(block.size)}"
        lines = on_curve(block.cells, columns) if curve else rows(block.cells, columns)
        yield from _block(lines, colours=colours, labelled=not curve)
    for words, size in made.totals.items():
        sample = _sample(Tone(words), colours=colours)
        yield f"{sample} {words}: {format_size(size)} ({100 * size / made.ram_size:.1f} %)"
    yield f"a cell is {format_size(made.cell_size)}"


def _block(lines: Sequence[Line], *, colours: bool, labelled: bool) -> Iterator[str]:
    step = 2 if colours and len(lines) > 1 else 1
    for at in range(0, len(lines), step):
        first = lines[at][0]
        label = ""
        if first is not None and (labelled or at == 0):
            label = f"{first.offset if first.gpa is None else first.gpa:#x}"
        pair = lines[at : at + step]
        drawn = _coloured(pair) if colours else "".join(map(_letter, pair[0])).rstrip()
        yield f"{label:>{_LABELS - 1}} {drawn}"


def _coloured(pair: Sequence[Line]) -> str:
    drawn, before = [], ""
    below: Line = pair[1] if len(pair) > 1 else [None] * len(pair[0])
    for upper, lower in zip(pair[0], below, strict=True):
        code = _code(upper, "3") + _code(lower, "4")
        if code != before:
            drawn.append(_RESET + code)
            before = code
        drawn.append(_HALF if code else " ")
    return "".join(drawn) + _RESET


def _code(cell: Cell | None, place: str) -> str:
    return "" if cell is None else f"\x1b[{place}8;5;{PAINTS[look_of(cell).tone].code}m"


def _letter(cell: Cell | None) -> str:
    return " " if cell is None else PAINTS[look_of(cell).tone].letter


def _sample(tone: Tone, *, colours: bool) -> str:
    paint = PAINTS[tone]
    return f"\x1b[38;5;{paint.code}m\u2588\u2588{_RESET}" if colours else paint.letter
