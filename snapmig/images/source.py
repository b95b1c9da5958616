"""
What every kind of guest RAM image offers to a save.

The parent holds an :class:`ImageSource`; its :class:`ImageReader` is opened in each worker. Both
speak in RAM offsets (see :mod:`snapmig.geometry`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from snapmig.architectures import Architecture
from snapmig.geometry import PacketPlace, RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.readers.files import Part, PartsReader
from snapmig.pages import Bytes, as_pages
from snapmig.system.holes import next_data

__all__ = ("FilesImage", "ImageReader", "ImageSource", "PartsImage", "read_batch", "read_pages")


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


class FilesImage:
    """
    What images of files share: the files are watched, and closed with the image.

    :ivar files: all of them
    """

    files: tuple[ImageFile, ...]
    architecture: Architecture | None = None

    def check_unchanged(self) -> None:
        """
        Compare the files with what they were when they were opened.

        :raises ImageChangedError: a size or a time of change is another one
        """
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


class PartsImage(FilesImage):
    """
    An image whose RAM lies in ranges of files.

    :param parts: in the order of RAM offsets; what no part covers is zero
    :param files: the files of those parts, closed with the image
    """

    def __init__(
        self,
        format_name: str,
        blocks: Sequence[RamBlock],
        parts: Sequence[Part],
        files: Sequence[ImageFile],
        attachments: Mapping[str, bytes] | None = None,
    ) -> None:
        self.format = format_name
        self.shown = files[0].shown
        self.paths = tuple(file.shown for file in files)
        self.blocks = tuple(blocks)
        self.attachments = {} if attachments is None else attachments
        self.parts = tuple(parts)
        self.files = tuple(files)
        self._starts = [part.start for part in self.parts]
        self._fds = {file.path: file.fd for file in self.files}

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function that opens a reader in any process."""
        return partial(PartsReader, self.parts)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on that is in a part and not in a hole."""
        for part in self.parts[max(0, bisect_right(self._starts, start) - 1) :]:
            shift = part.file_offset - part.start
            first = max(start, part.start)
            if first < part.stop:
                found = next_data(self._fds[part.path], first + shift, part.stop + shift) - shift
                if found < part.stop:
                    return found
        return None


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
