"""Ranges of RAM at arbitrary places of a file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from snapmig.geometry import PAGE_SIZE, Geometry, PacketPlace, RamBlock
from snapmig.images.plan import Placer
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask, runs

__all__ = ("Span", "SpanPlacer", "piece_spans")


class Span(NamedTuple):
    """A range of RAM offsets and its place in a file."""

    start: int
    stop: int
    offset: int


class SpanPlacer(Placer):
    """
    Puts packets into a file with some ranges of RAM at arbitrary places.

    :param spans: their places; RAM outside all of them is left out, RAM in several is written to
        each
    :ivar spans: the same in order
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        super().__init__((), ())
        self.spans = sorted(spans)
        self._starts = [span.start for span in self.spans]
        self._reach = list(accumulate((span.stop for span in self.spans), max))

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Write a packet's data pages, ``(n, 4096)`` in order, to their places by ``mask``."""
        done = 0
        for first, count in runs(mask):
            at = first * PAGE_SIZE
            # The last page may be cut short by the end of its block.
            content = data[done : done + count].reshape(-1)[: place.length - at]
            start = place.ram_offset + at
            for low, high, offset in self._between(start, start + content.size):
                store.write(offset, content[low - start : high - start])
            done += count

    def zero(self, store: Store, place: PacketPlace, mask: Mask) -> None:
        """Make the pages outside ``mask`` zero, in a file with older contents."""
        for first, count in runs(~mask):
            at = first * PAGE_SIZE
            start = place.ram_offset + at
            stop = start + min(count * PAGE_SIZE, place.length - at)
            for low, high, offset in self._between(start, stop):
                store.zero(offset, high - low)

    def _between(self, start: int, stop: int) -> Iterator[Span]:
        number = bisect_left(self._starts, stop) - 1
        while number >= 0 and self._reach[number] > start:
            span = self.spans[number]
            low, high = max(start, span.start), min(stop, span.stop)
            if low < high:
                yield Span(low, high, span.offset + low - span.start)
            number -= 1


def piece_spans(blocks: Sequence[RamBlock]) -> list[Span]:
    """Return a span for each piece of RAM blocks, placed at its address, in that order."""
    geometry = Geometry(tuple(blocks), PAGE_SIZE)
    spans = []
    for number, block in enumerate(blocks):
        for piece in block.pieces:
            start = geometry.block_start(number) + piece.offset
            spans.append(Span(start, start + piece.size, piece.gpa))
    return sorted(spans, key=lambda span: span.offset)
