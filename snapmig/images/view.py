"""An image as a restore would write it, read at any place without writing it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from snapmig.geometry import Geometry
from snapmig.images.plan import ImagePlan, Later
from snapmig.images.spans import SpanPlacer
from snapmig.pages import Bytes

__all__ = ("ImageView", "Segment")

Pieces = Callable[[int, int], Iterable[Bytes]]


class Segment(NamedTuple):
    """
    A range of an image's bytes: guest RAM, or others.

    :param ram_offset: of its first byte, None for other bytes
    """

    start: int
    stop: int
    ram_offset: int | None
    content: bytes | Later = b""


class ImageView:
    """
    The bytes of an image.

    :param segments: of it; bytes outside all of them are zero
    :param pieces: yields the bytes between two RAM offsets
    :ivar size: in bytes
    :ivar segments: in order
    """

    def __init__(self, size: int, segments: Iterable[Segment], pieces: Pieces) -> None:
        self.size = size
        self._pieces = pieces
        self.segments = sorted(segments, key=itemgetter(0))
        self._starts = [segment.start for segment in self.segments]

    @classmethod
    def planned(cls, plan: ImagePlan, geometry: Geometry, pieces: Pieces) -> ImageView:
        """Return the view of a planned image."""
        others = (Segment(at, at + len(piece), None, piece) for at, piece in plan.pieces if piece)
        return cls(plan.size, [*others, *_ram(plan, geometry)], pieces)

    def read(self, offset: int, size: int) -> bytes:
        """
        Return bytes; fewer only at the end.

        :raises CorruptSnapshotError: a packet in this range is damaged
        """
        return b"".join(self._parts(offset, min(offset + size, self.size)))

    def between(self, start: int, stop: int) -> Iterator[Segment]:
        """Yield the segments between two offsets, cut to that range."""
        number = max(0, bisect_right(self._starts, start) - 1)
        for segment in map(self.segments.__getitem__, range(number, len(self.segments))):
            if segment.start >= stop:
                break
            first, end = max(start, segment.start), min(stop, segment.stop)
            if first < end:
                skipped = first - segment.start
                ram_offset = None if segment.ram_offset is None else segment.ram_offset + skipped
                content = segment.content[skipped : skipped + end - first]
                yield Segment(first, end, ram_offset, content)

    def _parts(self, at: int, stop: int) -> Iterator[bytes | memoryview]:
        for segment in self.between(at, stop):
            if at < segment.start:
                yield bytes(segment.start - at)
            if segment.ram_offset is None:
                yield segment.content[:]
            else:
                length = segment.stop - segment.start
                ram = segment.ram_offset
                yield from (piece.data for piece in self._pieces(ram, ram + length))
            at = segment.stop
        if at < stop:
            yield bytes(stop - at)


def _ram(plan: ImagePlan, geometry: Geometry) -> Iterator[Segment]:
    if isinstance(plan.placer, SpanPlacer):
        for start, stop, offset in plan.placer.spans:
            yield Segment(offset, offset + stop - start, start)
        return
    if plan.placer is not None:
        raise TypeError("pages are between other bytes, expected RAM in one piece")
    for number, (block, offset) in enumerate(zip(geometry.blocks, plan.block_offsets, strict=True)):
        yield Segment(offset, offset + block.size, geometry.block_start(number))
