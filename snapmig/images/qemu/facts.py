"""The attachment ``vmstate.json``: a type and limits for each value."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ("Facts", "parse_facts")

_Offset = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    page_size: _Offset
    bitmap_offset: _Offset
    pages_offset: _Offset

    def fields(self) -> tuple[int, int, int]:
        return self.page_size, self.bitmap_offset, self.pages_offset


class _Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    length: _Offset
    gpa: int | None
    mapped: _Place | None


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A migration file's state without its two long parts; bytes are hexadecimal here."""

    start: _Offset
    machine: str
    capabilities: tuple[str, ...]
    subsections: tuple[tuple[str, int, str], ...]
    ram_header: str
    list_end: str
    blocks: tuple[_Block, ...]


def parse_facts(raw: bytes) -> Facts:
    """
    Return the facts in an attachment.

    :raises ValueError: it is not JSON, or a value has another type or is out of range
    """
    try:
        return msgspec.json.decode(raw, type=Facts)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
