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
from snapmig.geometry import PAGE_SIZE, PacketPlace, RamBlock
from snapmig.pages import Bytes, PageGroup, as_pages

__all__ = ("ImageReader", "ImageSource", "View", "read_batch", "read_pages")

View = Callable[[int, int], Bytes]
"""Returns the bytes between two RAM offsets."""


class ImageReader(Protocol):
    """Reads an image in one process."""

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets with contents possibly other than zero."""

    def view(self, start: int, stop: int) -> Bytes:
        """Return the bytes of a range inside one extent, without a copy where possible."""

    def read(self, start: int, stop: int) -> Bytes:
        """Return the same to be read once: a copy where that takes less than its page faults."""
        return self.view(start, stop)

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
    :ivar remarks: warnings for the user about what the image lacks, a sentence each
    """

    format: str
    shown: str
    paths: tuple[str, ...]
    blocks: tuple[RamBlock, ...]
    attachments: Mapping[str, bytes]
    architecture: Architecture | None
    remarks: tuple[str, ...]

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
    extents = list(reader.extents(start, stop))
    return _filled(reader.view, extents, start, stop) if extents else None


def read_batch(
    reader: ImageReader, start: int, stop: int, packet_size: int, view: View | None = None
) -> Iterator[PageGroup]:
    """
    Yield the pages of consecutive packets of a block, without packets that are all a hole.

    Packets with few pages come together: most that is done for one costs as much for many. Others
    come one by one, and share the image's memory if they are one extent.

    :param view: default: the reader's own
    """
    view = view or reader.view
    group: list[tuple[int, int]] = []
    size = 0
    for first, end in _cut(reader.extents(start, stop), start, packet_size):
        same = group and (first - start) // packet_size == (group[-1][0] - start) // packet_size
        if group and not same and size + end - first > packet_size:
            yield _group(view, group, range(start, stop), packet_size)
            group, size = [], 0
        group.append((first, end))
        size += end - first
    if group:
        yield _group(view, group, range(start, stop), packet_size)


def _cut(
    extents: Iterator[tuple[int, int]], start: int, packet_size: int
) -> Iterator[tuple[int, int]]:
    # Extents, cut where packets begin.
    for first, end in extents:
        while first < end:
            after = min(end, first + packet_size - (first - start) % packet_size)
            yield first, after
            first = after


def _group(
    view: View, extents: Sequence[tuple[int, int]], ram: range, packet_size: int
) -> PageGroup:
    number = (extents[0][0] - ram.start) // packet_size
    count = (extents[-1][0] - ram.start) // packet_size + 1 - number
    start = ram.start + number * packet_size
    stop = min(ram.stop, start + count * packet_size)
    edges = [edge for each in extents for edge in each if edge != stop]
    if any((edge - start) % PAGE_SIZE for edge in edges):  # a page is a hole in part
        extents, views = [(start, stop)], [_filled(view, extents, start, stop)]
    else:
        views = [view(first, end) for first, end in extents]
    spans = [
        slice((first - start) // PAGE_SIZE, -((start - end) // PAGE_SIZE)) for first, end in extents
    ]
    pages = packet_size // PAGE_SIZE
    if len(views) == 1:
        return PageGroup(as_pages(views[0]), spans[0], number, count, pages)
    there = np.zeros(count * pages, np.bool_)
    for span in spans:
        there[span] = True
    return PageGroup(as_pages(np.concatenate(views)), there, number, count, pages)


def _filled(view: View, extents: Sequence[tuple[int, int]], start: int, stop: int) -> Bytes:
    if extents == [(start, stop)]:
        return as_pages(view(start, stop))
    content = np.zeros(stop - start, np.uint8)
    for first, end in extents:
        content[first - start : end - start] = view(first, end)
    return as_pages(content)
