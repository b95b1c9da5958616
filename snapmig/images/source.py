"""
Interface of all guest RAM images to a save.

The parent holds an :class:`ImageSource`; its :class:`ImageReader` is opened in each worker. Both
work in RAM offsets (see :mod:`snapmig.geometry`).
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
        """Yield the ranges between two RAM offsets with contents possibly other than zero."""

    def view(self, start: int, stop: int) -> Bytes:
        """Return the bytes of a range inside one extent, without a copy where possible."""

    def expect(self, start: int, stop: int) -> None:  # noqa: ARG002
        """Prepare for a range to be read soon; by default the kernel reads ahead."""
        return

    def release(self, start: int, stop: int) -> None:
        """Note that a range is no longer needed."""


class ImageSource(Protocol):
    """
    An image being saved, as seen by the parent.

    :ivar format: the name of its format
    :ivar shown: its display name
    :ivar paths: the files it is read from
    :ivar attachments: its contents besides pages, by name
    :ivar architecture: the guest's processors, None if not known
    """

    format: str
    shown: str
    paths: tuple[str, ...]
    blocks: tuple[RamBlock, ...]
    attachments: Mapping[str, bytes]
    architecture: Architecture | None

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function to open a reader in any process."""

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on that may be other than zero, or None."""

    def check_unchanged(self) -> None:
        """
        Compare the image with its state when opened.

        :raises ImageChangedError: its size or modification time differs
        """

    def close(self) -> None:
        """Close the image."""


def read_pages(reader: ImageReader, place: PacketPlace) -> Bytes | None:
    """
    Return a packet's pages as ``(pages, 4096)``, or None if all of it is a hole.

    The result shares the image's memory if the packet is one extent.
    """
    start, stop = place.ram_offset, place.ram_offset + place.length
    return _pages_of(reader, list(reader.extents(start, stop)), start, stop)


def read_batch(reader: ImageReader, places: Sequence[PacketPlace]) -> Iterator[Bytes | None]:
    """
    Yield the results of :func:`read_pages` for consecutive packets of a block.

    Holes are looked up once for all of them, in the time of a single packet.
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
