"""
Colours and patterns of tones.

Tones differ in lightness as well as in hue, and differences and the parent's pages are hatched, so
that they can be told apart without colours and on paper.
"""

from __future__ import annotations

from typing import NamedTuple

from snapmig.maps.tones import STRENGTHS, Look, Tone

__all__ = ("BACKGROUND", "DARK_BACKGROUND", "DARK_TEXT", "PAINTS", "TEXT", "Paint", "opacity")

BACKGROUND, TEXT = "#ffffff", "#1b1f24"
DARK_BACKGROUND, DARK_TEXT = "#14181d", "#e6e9ec"


class Paint(NamedTuple):
    """
    A tone's colours on a light and on a dark background.

    :ivar hatch: direction of its lines: 1 rising, -1 falling, 0 none
    :ivar code: the nearest of a terminal's 256 colours
    :ivar letter: for terminals without colours
    """

    light: str
    dark: str
    hatch: int
    code: int
    letter: str


PAINTS = {
    Tone.ZERO: Paint("#e9ecef", "#2a3038", 0, 238, "."),
    Tone.SAME: Paint("#7fc8a9", "#2f7d5d", 1, 36, "="),
    Tone.SMALL: Paint("#a6cbe9", "#2c5a85", 0, 24, "-"),
    Tone.MIDDLE: Paint("#4b92cc", "#4b92cc", 0, 32, "+"),
    Tone.LARGE: Paint("#123f75", "#a9d0f0", 0, 117, "*"),
    Tone.RAW: Paint("#e08a00", "#f0a63a", 0, 214, "#"),
    Tone.DELTA: Paint("#b0568f", "#d080b4", -1, 168, "~"),
    Tone.UNCHANGED: Paint("#9ab8cf", "#3d5a73", 0, 24, "-"),
    Tone.CHANGED: Paint("#c2410c", "#fb923c", 0, 208, "#"),
}


def opacity(look: Look) -> float:
    """Return the opacity of a cell, 0.4 to 1."""
    return 0.2 + 0.8 * look.strength / STRENGTHS
