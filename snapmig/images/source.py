"""
What every kind of guest RAM image offers to a save.

The parent holds an :class:`ImageSource`; its :class:`ImageReader` is opened in each worker. Both
speak in RAM offsets (see :mod:`snapmig.geometry`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from snapmig.architectures import Architecture
from snapmig.geometry import PacketPlace, RamBlock
from snapmig.pages import Bytes, as_pages

__all__ = ("ImageReader", "ImageSource", "read_batch", "read_pages")


class ImageReader(Protocol):
    """Reads an image in one process."""

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets that may be other than zero."""

    def view(self, start: int, stop: int) -> Bytes:
        """Return the bytes of a range inside one extent, without a copy where possible."""

    def expect(self, start: int, stop: int) -> None:
        """Hear of a range that will be asked for soon."""

    def release(self, start: int, stop: int) -> None:
        """Say that a range is not needed any more."""


class ImageSource(Protocol):
    """
    An image that is being saved, as the parent sees it.

    :ivar format: the name of its format
    :ivar shown: its name for people
    :ivar paths: the files that it is read from
    :ivar attachments: what belongs to it besides pages: names to contents
    :ivar architecture: the guest's processors, None where they are not known
    """

    format: str
    shown: str
    paths: tuple[str, ...]
    blocks: tuple[RamBlock, ...]
    attachments: Mapping[str, bytes]
    architecture: Architecture | None

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function that opens a reader in any process."""

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on that may be other than zero, or None."""

    def check_unchanged(self) -> None:
        """
        Compare the image with what it was when it was opened.

        :raises ImageChangedError: its size or its time of change is another one
        """

    def close(self) -> None:
        """Let go of the image."""


def read_pages(reader: ImageReader, place: PacketPlace) -> Bytes | None:
    """
    Return a packet's pages as ``(pages, 4096)``, or None when all of it is a hole.

    The result shares the image's memory where the packet is one extent.
    """
    start, stop = place.ram_offset, place.ram_offset + place.length
    return _pages_of(reader, list(reader.extents(start, stop)), start, stop)


def read_batch(reader: ImageReader, places: Sequence[PacketPlace]) -> Iterator[Bytes | None]:
    """
    Yield what :func:`read_pages` returns of packets that follow each other in a block.

    The holes are asked for once, which takes as long as for one packet.
    """
    extents = list(reader.extents(places[0].ram_offset, places[-1].ram_offset + places[-1].length))
    for place in places:
        start, stop = place.ram_offset, place.ram_offset + place.length
        own = [(max(a, start), min(b, stop)) for a, b in extents if a < stop and b > start]
        yield _pages_of(reader, own, start, stop)


def _pages_of(
    reader: ImageReader, extents: Sequence[tuple[int, int]], start: int, stop: int
) -> Bytes | None:
    if not extents:
        return None
    if extents == [(start, stop)]:
        return as_pages(reader.view(start, stop))
    content = np.zeros(stop - start, np.uint8)
    for first, end in extents:
        content[first - start : end - start] = reader.view(first, end)
    return as_pages(content)
