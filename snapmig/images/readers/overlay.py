"""
RAM as a whole file, overlaid with later files of changes.

A hole in a later file means "unchanged"; zeros written there mean zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from snapmig.errors import SnapmigError
from snapmig.geometry import RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.readers.files import MappedFile
from snapmig.images.readers.parts import FilesImage
from snapmig.images.source import ImageReader
from snapmig.pages import Bytes
from snapmig.system.holes import next_data

__all__ = ("MAX_LAYERS", "OverlayImage", "OverlayReader")

MAX_LAYERS = 256

_LARGE = 64 << 10
"""Bytes. Less is mapped by a single page fault, and a copy would take longer."""


class OverlayReader(ImageReader):
    """
    Reads RAM from files of one size, with RAM offsets as file offsets.

    :param paths: the whole file, then the files of changes, the oldest first
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = [MappedFile(path) for path in paths]

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between two RAM offsets that are not holes, each within one file."""
        return self._extents(len(self._files) - 1, start, stop)

    def view(self, start: int, stop: int) -> Bytes:
        """Return the mapped bytes of a range inside one extent."""
        return self._at(start).array[start:stop]

    def read(self, start: int, stop: int) -> Bytes:
        """Return a copy of a large range, see :meth:`MappedFile.read`."""
        file = self._at(start)
        return file.array[start:stop] if stop - start < _LARGE else file.read(start, stop)

    def release(self, start: int, stop: int) -> None:
        """Note that a range is no longer needed."""
        for file in self._files:
            file.release(start, stop)

    def _at(self, start: int) -> MappedFile:
        # The last one with data there.
        for file in reversed(self._files):
            if next(file.extents(start, start + 1), None):
                return file
        return self._files[0]

    def _extents(self, layer: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        below = start
        for first, end in self._files[layer].extents(start, stop):
            if layer and below < first:
                yield from self._extents(layer - 1, below, first)
            yield first, end
            below = end
        if layer and below < stop:
            yield from self._extents(layer - 1, below, stop)


class OverlayImage(FilesImage):
    """
    An image with its RAM in a whole file and later files of changes.

    :param layers: the whole file, then the files of changes, the oldest first
    :param others: further files of the image, watched and closed with it
    :raises SnapmigError: the files differ in size, or are too many
    """

    def __init__(
        self,
        format_name: str,
        blocks: Sequence[RamBlock],
        layers: Sequence[ImageFile],
        others: Sequence[ImageFile] = (),
        attachments: Mapping[str, bytes] | None = None,
    ) -> None:
        self.format = format_name
        self.shown = layers[-1].shown
        self.paths = tuple(file.shown for file in layers)
        self.blocks = tuple(blocks)
        self.attachments = {} if attachments is None else attachments
        self.layers = tuple(layers)
        self.files = (*layers, *others)
        _check_layers(self.layers)

    def opener(self) -> Callable[[], OverlayReader]:
        """Return a picklable function to open a reader in any process."""
        return partial(OverlayReader, [file.path for file in self.layers])

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on with data in any of the files."""
        size = self.layers[0].size
        found = min(next_data(file.fd, start, size) for file in self.layers)
        return found if found < size else None


def _check_layers(layers: Sequence[ImageFile]) -> None:
    base = layers[0]
    if len(layers) > MAX_LAYERS:
        message = f"{len(layers)} layers of memory, expected at most {MAX_LAYERS}"
        raise SnapmigError(message, path=base.shown)
    for file in layers:
        if file.size != base.size:
            message = f"file has {file.size} bytes, its base {base.shown} has {base.size}"
            raise SnapmigError(message, path=file.shown)
