"""Text of files, monitors and names, for a terminal or a log: nothing in it acts there."""

from __future__ import annotations

import unicodedata

__all__ = ("printable",)

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Control characters, format characters (those that turn the direction of text are among them),
# lone surrogates, which stand for bytes that are not UTF-8, and the two that end lines.
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""
    Return a text with what a terminal would obey, or nobody would see, as backslash escapes.

    Printable text comes back as it is, letters of every script and backslashes too. A byte that
    was not UTF-8 when a path was decoded (a surrogate from U+DC80 to U+DCFF) becomes ``\xNN``.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
