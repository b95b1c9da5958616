"""
The note VMCOREINFO, in which a Linux kernel tells debuggers where its structures are.

The kernel builds it at boot, as an ELF note at the start of a page. Its text alone occurs elsewhere
too, so a page counts only if it starts with the whole header, and if the text is lines to its end.
"""

from __future__ import annotations

import re

import numpy as np

from snapmig.pages import Bytes

__all__ = ("MAX_NOTE_SIZE", "NOTE_NAME", "find_note", "find_notes", "note_text", "text_value")

NOTE_NAME = b"VMCOREINFO"
MAX_TEXT_SIZE = 64 << 10
"""Bytes of text; a kernel has room for a page of it, and pages have up to 64 KiB."""

_HEADER_SIZE = 24
MAX_NOTE_SIZE = _HEADER_SIZE + MAX_TEXT_SIZE
_FIRST_LINE = b"OSRELEASE="
_LINES = re.compile(rb"(?:[A-Za-z_][\w.() -]*=[\x20-\x7e]*\n)+\0*")
_NEEDED = (b"\nPAGESIZE=", b"\nSYMBOL(")


def _mark(order: str) -> Bytes:
    # The start of such a page; four bytes of it, the length of the text, can be anything.
    size = len(NOTE_NAME) + 1
    start = size.to_bytes(4, order) + bytes(8) + NOTE_NAME + b"\0\0" + _FIRST_LINE  # type: ignore[arg-type]
    return np.frombuffer(start, np.uint8)


_MARKS = (_mark("little"), _mark("big"))
_NAME = NOTE_NAME[:4]
_NAME_WORD = np.frombuffer(_NAME, np.uint32)[0]
_FIXED = np.ones(_MARKS[0].size, np.bool_)
_FIXED[4:8] = False


def find_notes(pages: Bytes) -> list[int]:
    """Return the numbers of the pages, among ``(n, 4096)``, that start like the kernel's note."""
    # Four bytes of the name first, 3 us for a packet: few pages pass.
    named = np.flatnonzero(pages.view(np.uint32)[:, 3] == _NAME_WORD)
    return [
        int(page)
        for page in named
        if any((pages[page, : mark.size] == mark)[_FIXED].all() for mark in _MARKS)
    ]


def find_note(pages: Bytes) -> int | None:
    """Return the number of the first page with the kernel's note, if all of it is in the pages."""
    if _NAME not in pages[:, 12:16].tobytes():  # 2 us for a packet, and true of few
        return None
    for page in find_notes(pages):
        if note_text(pages[page:].reshape(-1)[:MAX_NOTE_SIZE].tobytes()) is not None:
            return page
    return None


def note_text(content: bytes) -> bytes | None:
    """
    Return the text of a note, None if it is not one.

    :param content: what the page starts with, and the memory behind it
    """
    order = "little" if content[0] else "big"
    size = int.from_bytes(content[4:8], order)  # type: ignore[arg-type]
    text = content[_HEADER_SIZE : _HEADER_SIZE + size]
    if not 0 < size == len(text) <= MAX_TEXT_SIZE or not _LINES.fullmatch(text):
        return None
    return text.rstrip(b"\0") if all(word in text for word in _NEEDED) else None


def text_value(text: bytes, key: bytes) -> bytes:
    """Return the value of a line, empty if there is none of this key."""
    found = re.search(rb"^%s=(.*)$" % re.escape(key), text, re.MULTILINE)
    return b"" if found is None else found[1]
