"""A map as rectangles and texts, from which files of any kind are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from snapmig.geometry import PAGE_SIZE
from snapmig.maps.cells import BlockMap, Cell, MemoryMap
from snapmig.maps.places import on_curve, rows
from snapmig.maps.tones import Look, Tone, look_of
from snapmig.printable import printable
from snapmig.units import format_size

__all__ = ("Drawing", "Rectangle", "Text", "draw")

SIDE = 10
"""Of a cell, as all places and sizes here in pixels."""
COLUMNS = 64
MARGIN = 20
LABELS = 110
LINE = 18
LEGEND_WIDTH = 380
_SHOWN_NAME = 48

Line = Sequence[Cell | None]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A cell, several with one look in a row, or a sample in the legend."""

    x: int
    y: int
    width: int
    height: int
    look: Look
    about: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; ``x`` is its end where ``ends`` is set, and ``y`` its baseline."""

    x: int
    y: int
    text: str
    large: bool = False
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """A whole picture."""

    title: str
    width: int
    height: int
    shapes: tuple[Rectangle | Text, ...]


def draw(made: MemoryMap, *, curve: bool = False) -> Drawing:
    """
    Return the picture of a map.

    :param curve: cells along a Hilbert curve instead of in rows
    """
    title = f"Memory of {printable(made.snapshot)}"
    shapes: list[Rectangle | Text] = []
    y = MARGIN + LINE
    shapes.append(Text(MARGIN, y, title, large=True))
    for line in _subtitles(made):
        y += LINE
        shapes.append(Text(MARGIN, y, line))
    y += LINE
    width = MARGIN * 2 + LABELS + COLUMNS * SIDE
    for block in made.blocks:
        new, y, right = _block(block, y, curve=curve)
        shapes += new
        width = max(width, right + MARGIN)
    new, y = _legend(made, y + LINE)
    return Drawing(title, width, y + MARGIN, (*shapes, *new))


def _subtitles(made: MemoryMap) -> Iterator[str]:
    if made.against is not None:
        yield f"against {printable(made.against)}"
    yield (
        f"{format_size(made.ram_size)} of RAM, stored in {format_size(made.stored_size)}, "
        f"{made.created}; a cell is {format_size(made.cell_size)}"
    )


def _block(block: BlockMap, y: int, *, curve: bool) -> tuple[list[Rectangle | Text], int, int]:
    # The shapes, the y below them, and the x right of them.
    left = MARGIN + LABELS
    name = f"{_shortened(printable(block.block))}, {format_size(block.size)}"
    if len(block.cells) == 1:  # most blocks of a guest are small, and need no lines of their own
        cells = list(_line(block.cells, left - SIDE * 2, y))
        return [*cells, Text(left, y + SIDE, name)], y + LINE, left
    shapes: list[Rectangle | Text] = [Text(left, y + SIDE, name)]
    y += LINE
    lines = on_curve(block.cells, COLUMNS) if curve else rows(block.cells, COLUMNS)
    for at, line in enumerate(lines):
        first = line[0]
        if first is not None and (not curve or at == 0):
            address = first.offset if first.gpa is None else first.gpa
            shapes.append(Text(left - 8, y + SIDE - 1, f"{address:#x}", ends=True))
        shapes += _line(line, left, y)
        y += SIDE
    return shapes, y + LINE, left + SIDE * max(map(len, lines))


def _line(line: Line, left: int, y: int) -> Iterator[Rectangle]:
    at = 0
    for look, group in groupby(line, _look_or_none):
        cells = [cell for cell in group if cell is not None]
        if look is None:
            at += 1
            continue
        for part in _runs(cells):
            x = left + at * SIDE
            yield Rectangle(x, y, len(part) * SIDE, SIDE, look, _about(part))
            at += len(part)


def _look_or_none(cell: Cell | None) -> Look | None:
    return None if cell is None else look_of(cell)


def _runs(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    # Neighbours on a curve need not follow each other in memory.
    run: list[Cell] = []
    for cell in cells:
        if run and cell.offset != run[-1].offset + run[-1].pages * PAGE_SIZE:
            yield run
            run = []
        run.append(cell)
    yield run


def _about(cells: Sequence[Cell]) -> str:
    first = cells[0]
    start = first.offset if first.gpa is None else first.gpa
    pages = sum(cell.pages for cell in cells)
    words = [f"{sum(cell.in_use for cell in cells)} of {pages} pages are not zero"]
    counts: tuple[tuple[str, Callable[[Cell], int | None]], ...] = (
        ("changed", lambda cell: cell.changed),
        ("the parent's", lambda cell: cell.same),
        ("differences", lambda cell: cell.delta),
        ("as they are", lambda cell: cell.raw),
    )
    for word, count in counts:
        if total := sum(count(cell) or 0 for cell in cells):
            words.append(f"{total} {word}")
    stored = format_size(sum(cell.stored_size for cell in cells))
    return f"{start:#x}-{start + pages * PAGE_SIZE - 1:#x}: {', '.join(words)}; {stored} stored"


def _legend(made: MemoryMap, y: int) -> tuple[list[Rectangle | Text], int]:
    shapes: list[Rectangle | Text] = []
    totals = {Tone(words): size for words, size in made.totals.items()}
    for at, (tone, size) in enumerate(totals.items()):
        x = MARGIN + at % 2 * LEGEND_WIDTH
        share = 100 * size / made.ram_size
        shapes.append(Rectangle(x, y, SIDE * 2, SIDE, Look(tone)))
        words = f"{tone.value}: {format_size(size)} ({share:.1f} %)"
        shapes.append(Text(x + SIDE * 3, y + SIDE - 1, words))
        y += LINE if at % 2 else 0
    y += LINE if len(totals) % 2 else 0
    return [*shapes, Text(MARGIN, y + SIDE, _NOTE)], y + LINE


_NOTE = "A paler cell has fewer such pages; the others in it are zero, the parent's or unchanged."


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME else f"{name[: _SHOWN_NAME - 3]}..."
