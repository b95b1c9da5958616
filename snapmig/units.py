"""Sizes and durations: from text to numbers, and back."""

from __future__ import annotations

import re

from snapmig.errors import UsageError

__all__ = ("format_count", "format_duration", "format_size", "parse_size")

_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+)([kmgt]?)(i?b)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str | int) -> int:
    """
    Return the number of bytes in ``"512K"``, ``"4MiB"`` or ``4096``.

    Units are powers of 1024, as in every tool of this field.

    :raises UsageError: not a whole number with a unit of K, M, G or T
    """
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = f"size is {text!r}, expected a whole number with an optional K, M, G or T"
        raise UsageError(message)
    return int(match[1]) * _FACTORS[match[2].lower()]


def format_count(number: int, noun: str) -> str:
    """Return a number of things: ``"1 page"``, ``"2 pages"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_size(size_bytes: float) -> str:
    """Return a size for people: ``"512 B"``, ``"1.5 GiB"``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Return a duration for people: ``"0.42 s"``, ``"3 min 07 s"``."""
    if seconds < 100:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
