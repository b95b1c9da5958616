"""Text as roff, in the few requests of man(7) that every reader of manual pages knows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable

_WIDTH = 78  # of a line of roff; mandoc wants at most 80
# What is typed as it stands: options, names with a dot, a slash or the like in them, numbers.
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")
_TYPED = re.compile(r"^[^\w-]*(-[\w-]|\S*[/_:.=]\w)|\d")
_PAGE = re.compile(r"(snapmig(?:-[a-z]+)?|[a-z][\w.]*)\((\d)\)")


def escape(text: str, *, typed: bool = False) -> str:
    """
    Return text whose characters mean nothing to roff.

    :param typed: it is to be typed as it stands, so that hyphens and quotes are those of ASCII
    """
    text = text.replace("\\", "\\e")
    if typed:
        for character, name in {"-": r"\-", "'": r"\(aq", "~": r"\(ti", "^": r"\(ha"}.items():
            text = text.replace(character, name)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def bold(text: str) -> str:
    """Return what is typed as it stands."""
    return rf"\fB{escape(text, typed=True)}\fR"


def italic(text: str) -> str:
    """Return what is put for something else."""
    return rf"\fI{escape(text, typed=True)}\fR"


def paragraph(text: str, typed: Collection[str] = ()) -> list[str]:
    """
    Return the lines of a paragraph: each sentence on its own, options in bold.

    :param typed: words that are to be typed as they stand, besides options
    """
    lines = []
    for sentence in re.split(r"(?<=[a-z)\]][.]) (?=[A-Z])", " ".join(text.split())):
        words = " ".join(_word(word, typed) for word in sentence.split())
        wrapped = textwrap.wrap(words, _WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += [rf"\&{line}" if line.startswith((".", "'")) else line for line in wrapped]
    return lines


def literal(lines: Iterable[str]) -> list[str]:
    """Return lines as they are, indented."""
    return [".PP", ".RS 4", ".nf", *(escape(line, typed=True) for line in lines), ".fi", ".RE"]


def item(term: str, text: str, typed: Collection[str] = ()) -> list[str]:
    """
    Return an entry of a list.

    :param term: as roff
    :param typed: as of a paragraph
    """
    return [".TP", term, *paragraph(text, typed)]


def section(name: str, lines: list[str]) -> list[str]:
    """Return a section; one without lines is left out."""
    if lines[:1] == [".PP"]:
        lines = lines[1:]
    return [f".SH {name}", *lines] if lines else []


def _word(word: str, typed: Collection[str]) -> str:
    if (name := word.strip("(,):;")) in typed:
        return bold(name).join(map(escape, word.split(name, 1)))
    if page := _PAGE.search(word):
        start, end = page.span()
        name = rf"{bold(page[1])}({page[2]})"
        return escape(word[:start]) + name + escape(word[end:])
    if option := _OPTION.match(word.lstrip("(\"'")):
        start = word.index(option[0])
        end = start + len(option[0])
        return escape(word[:start]) + bold(option[0]) + escape(word[end:], typed=True)
    return escape(word, typed=bool(_TYPED.search(word)))
