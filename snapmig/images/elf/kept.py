"""A saved core besides its RAM: headers, notes and other bytes, and the places of all."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from snapmig.errors import CorruptSnapshotError
from snapmig.images.spans import Span

__all__ = ("PLACES", "REST", "KeptCore", "gaps", "load_kept", "saved_notes")

PLACES = "elf.json"
REST = "elf.rest"

_MAX_FILE_SIZE = (1 << 63) - 1
MAX_NOTES_SIZE = 16 << 20
"""Bytes in one of the segments of notes, of which a guest's core has one."""
_NOTE = 4
_TABLES = {1: ("I", 28, "H", 42), 2: ("Q", 32, "H", 54)}
"""By class, the place of the table of segments in the header, and of the size of its entries."""
_SEGMENTS = {1: struct.Struct("4xI8xI"), 2: struct.Struct("4x4xQ16xQ")}


class KeptCore(NamedTuple):
    """
    A saved core.

    :param size: of the file
    :param pieces: bytes that are not RAM, with their offsets
    """

    size: int
    spans: Sequence[Span]
    pieces: Sequence[tuple[int, bytes]]

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of one piece, fewer if they are not all there."""
        for start, piece in self.pieces:
            if start <= offset < start + len(piece):
                return piece[offset - start : offset - start + length]
        return b""


def gaps(spans: Iterable[Span], size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file outside all spans."""
    reached = 0
    for offset, length in sorted((span.offset, span.stop - span.start) for span in spans):
        if reached < offset:
            yield reached, offset
        reached = max(reached, offset + length)
    if reached < size:
        yield reached, size


def load_kept(attachments: Mapping[str, bytes], ram_size: int) -> KeptCore:
    """
    Return the core that a snapshot was made from.

    :raises CorruptSnapshotError: its attachments are damaged, or do not fit the RAM
    """
    from snapmig.images.elf.places import parse_places  # noqa: PLC0415 - its import takes 15 ms

    rest = attachments.get(REST, b"")
    try:
        size, spans = parse_places(attachments[PLACES])
    except ValueError as error:
        raise CorruptSnapshotError(f"attachment {PLACES} is not readable: {error}") from error
    others = list(gaps(spans, size))
    fit = all(
        0 <= start < stop <= ram_size and 0 <= offset <= size - (stop - start)
        for start, stop, offset in spans
    )
    if not fit or not 0 < size <= _MAX_FILE_SIZE or sum(b - a for a, b in others) != len(rest):
        message = f"attachments {PLACES} and {REST} do not fit each other and the RAM"
        raise CorruptSnapshotError(message)
    pieces, done = [], 0
    for start, stop in others:
        pieces.append((start, rest[done : done + stop - start]))
        done += stop - start
    return KeptCore(size, spans, pieces)


def saved_notes(attachments: Mapping[str, bytes], ram_size: int) -> bytes:
    """
    Return the notes of the core that a snapshot was made from, empty for another source.

    :raises CorruptSnapshotError: as in :func:`load_kept`
    """
    if PLACES not in attachments:
        return b""
    core = load_kept(attachments, ram_size)
    head = core.read(0, 64)
    if len(head) < 64 or head[4] not in _TABLES:
        return b""
    order, (word, at, half, sizes_at) = "<" if head[5] == 1 else ">", _TABLES[head[4]]
    (table,) = struct.unpack_from(order + word, head, at)
    width, count = struct.unpack_from(order + 2 * half, head, sizes_at)
    segments = core.read(table, width * count)
    form = struct.Struct(order + _SEGMENTS[head[4]].format)
    places = [
        form.unpack_from(segments, start)
        for start in range(0, len(segments) - form.size + 1, max(width, form.size))
        if struct.unpack_from(f"{order}I", segments, start) == (_NOTE,)
    ]
    return b"".join(core.read(offset, min(size, MAX_NOTES_SIZE)) for offset, size in places[:4])
