"""The manner of output that ``--quiet`` and ``--color`` choose, for the command of this process."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ("BOLD", "COLORS", "GREEN", "RED", "STYLE", "YELLOW", "has_colours", "paint")

COLORS = ("auto", "always", "never")
BOLD, RED, GREEN, YELLOW = 1, 31, 32, 33


class Style:
    """
    A choice.

    :ivar quiet: print errors and warnings only
    :ivar verbose: print more
    :ivar color: one of :data:`COLORS`
    """

    quiet = verbose = False
    color = "auto"


STYLE = Style()
"""Set once the arguments are known."""


def has_colours(stream: TextIO) -> bool:
    """Return true if a stream gets colours: by default a terminal, and without NO_COLOR."""
    if STYLE.color != "auto":
        return STYLE.color == "always"
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not dumb


def paint(text: str, code: int, stream: TextIO) -> str:
    """Return text in a colour, or in bold, if the stream gets colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if has_colours(stream) else text
