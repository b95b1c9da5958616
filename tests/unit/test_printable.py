"""Facts about text that comes from elsewhere and goes to a terminal."""

import os
import subprocess

import pytest

from snapmig.printable import printable, shell_words
from tests.support.requirements import requires

ESCAPED = {
    "escape sequence": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "line end": ("a\nb\r\tc", r"a\nb\r\tc"),
    "NUL and DEL": ("\0\x7f", r"\x00\x7f"),
    "C1 control": ("\x9b2J", r"\u009b2J"),
    "byte that is not UTF-8": ("a\udcffb", r"a\xffb"),
    "lone surrogate": ("\ud800", r"\ud800"),
    "right to left": ("a\u202egpj.exe", r"a\u202egpj.exe"),
    "isolate": ("\u2066x\u2069", r"\u2066x\u2069"),
    "line separator": ("a\u2028b", r"a\u2028b"),
    "beyond 16 bits": ("\U000e0001", r"\U000e0001"),
}


@pytest.mark.parametrize("kind", ESCAPED)
def test_escaped(kind: str) -> None:
    """Characters that a terminal obeys, or that nobody sees, are written as escapes."""
    text, shown = ESCAPED[kind]
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["", "/run/guest.qmp", "Gäste/客 1\u00a0x", "a\\b", "😀"])
def test_plain(text: str) -> None:
    """Text that only looks like something comes back as it is."""
    assert printable(text) == text


WORDS = {
    "plain": ["qemu-system-x86_64", "-m", "64M"],
    "a shell": ["sh", "-c", "rm -rf ~; echo 'x'"],
    "escape sequence": ["a\x1b[2J", "it's\n", "back\\slash\x07", "\x01234"],
    "bytes that are not UTF-8": ["\udcff\udcfef"],
    "right to left": ["\u202egpj"],
    "C1 control": ["\x9b2J\xad"],
    "empty": [""],
}


@pytest.mark.parametrize("kind", WORDS)
def test_shell_reads_the_same_words(kind: str) -> None:
    """A shell takes the line for the words that it was made of."""
    requires("bash")
    line = shell_words(WORDS[kind])
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    assert [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]] == WORDS[kind]


@pytest.mark.parametrize("kind", WORDS)
def test_shell_words_are_printable(kind: str) -> None:
    """The line has nothing that a terminal would obey."""
    assert shell_words(WORDS[kind]).isprintable()
