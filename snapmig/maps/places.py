"""Places of cells in a picture: rows, or a Hilbert curve, on which neighbours stay together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ("on_curve", "rows")

Item = TypeVar("Item")


def rows(items: Sequence[Item], width: int) -> list[list[Item | None]]:
    """Return items in rows of ``width``; the last row is filled up with None."""
    lines: list[list[Item | None]] = [
        list(items[at : at + width]) for at in range(0, len(items), width)
    ]
    if lines:
        lines[-1] += [None] * (width - len(lines[-1]))
    return lines


def on_curve(items: Sequence[Item], widest: int | None = None) -> list[list[Item | None]]:
    """
    Return items along a Hilbert curve in squares beside each other, with None where none is.

    The square's side is the largest power of two filled by the items, and not wider than
    ``widest``; further squares follow to the right, and below where there is no room.
    """
    side = 1
    while 4 * side * side <= len(items) and (widest is None or 2 * side <= widest):
        side *= 2
    count = -(-len(items) // (side * side))
    across = count if widest is None else max(1, min(count, widest // side))
    lines: list[list[Item | None]] = [
        [None] * (across * side) for _ in range(-(-count // across) * side)
    ]
    for at, item in enumerate(items):
        square, inside = divmod(at, side * side)
        x, y = _place(inside, side)
        lines[square // across * side + y][square % across * side + x] = item
    return lines


def _place(step: int, side: int) -> tuple[int, int]:
    # Quadrants from the smallest to the largest, each turned so that its ends meet its neighbours.
    x = y = 0
    size = 1
    while size < side:
        right, up = step >> 1 & 1, (step ^ step >> 1) & 1
        if not up:
            if right:
                x, y = size - 1 - x, size - 1 - y
            x, y = y, x
        x, y = x + size * right, y + size * up
        step >>= 2
        size *= 2
    return x, y
