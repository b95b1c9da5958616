"""Untrusted text from files, monitors and names, made harmless for a terminal or a log."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ("json_line", "printable", "shell_words")

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Control characters, format characters (those that turn the direction of text are among them),
# lone surrogates (bytes outside UTF-8), and the two line separators.
_SURROGATE = r"[\ud800-\udfff]"
_NOT_ASCII = r"[^\x00-\x7f]+"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""
    Return a text with control and invisible characters as backslash escapes.

    Printable text is returned unchanged, letters of every script and backslashes included. A byte
    left undecoded in a path (a surrogate from U+DC80 to U+DCFF) becomes ``\xNN``.
    """
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def shell_words(words: Iterable[str]) -> str:
    r"""
    Return a command as one line for a shell, fully visible in a terminal.

    Unprintable characters are in bash's quotes for them: ``$'a\x1b'``.
    """
    return " ".join(map(_shell_word, words))


def json_line(fields: Mapping[str, Any]) -> str:
    r"""
    Return a line of JSON in ASCII, valid for every reader.

    A byte of a path outside UTF-8, half a character to Python, becomes ``\xNN`` in its string.
    """
    import json  # noqa: PLC0415 - results are mostly printed as lines

    text = json.dumps(fields, ensure_ascii=False)
    text = re.sub(_SURROGATE, lambda match: json.dumps(printable(match[0]))[1:-1], text)
    return re.sub(_NOT_ASCII, lambda match: json.dumps(match[0])[1:-1], text)


def _shell_word(word: str) -> str:
    if printable(word) == word:
        import shlex  # noqa: PLC0415 - few verbs print commands

        return shlex.quote(word)
    plain = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(plain)}'"


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code <= 0x7F or 0xDC80 <= code <= 0xDCFF:  # one byte, of UTF-8 or not
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
