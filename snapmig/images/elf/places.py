"""The attachment ``elf.json``: the places of RAM in a saved core."""

from __future__ import annotations

from typing import Annotated

import msgspec

from snapmig.images.spans import Span

__all__ = ("MAX_PLACES", "parse_places")

MAX_PLACES = 1 << 18


class _Places(msgspec.Struct):
    size: int
    places: Annotated[list[tuple[int, int, int]], msgspec.Meta(max_length=MAX_PLACES)]


def parse_places(raw: bytes) -> tuple[int, list[Span]]:
    """
    Return a core's length in bytes, and its spans.

    :raises ValueError: not JSON, or a value has another type
    """
    try:
        found = msgspec.json.decode(raw, type=_Places)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return found.size, [Span(*item) for item in found.places]
