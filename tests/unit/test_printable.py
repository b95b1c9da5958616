"""Facts about text that comes from elsewhere and goes to a terminal."""

import pytest

from snapmig.printable import printable

ESCAPED = {
    "escape sequence": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "line end": ("a\nb\r\tc", r"a\nb\r\tc"),
    "NUL and DEL": ("\0\x7f", r"\x00\x7f"),
    "C1 control": ("\x9b2J", r"\x9b2J"),
    "byte that is not UTF-8": ("a\udcffb", r"a\xffb"),
    "lone surrogate": ("\ud800", r"\ud800"),
    "right to left": ("a\u202egpj.exe", r"a\u202egpj.exe"),
    "isolate": ("\u2066x\u2069", r"\u2066x\u2069"),
    "line separator": ("a\u2028b", r"a\u2028b"),
    "beyond 16 bits": ("\U000e0001", r"\U000e0001"),
}


@pytest.mark.parametrize("kind", ESCAPED)
def test_escaped(kind: str) -> None:
    """What a terminal would obey, and what nobody would see, is written as an escape."""
    text, shown = ESCAPED[kind]
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["", "/run/guest.qmp", "Gäste/客 1\u00a0x", "a\\b", "😀"])
def test_plain(text: str) -> None:
    """Text that only looks like something comes back as it is."""
    assert printable(text) == text
