"""Images in ranges of files, watched while they are read and closed with the image."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from snapmig.architectures import Architecture
from snapmig.geometry import RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.readers.files import Part, PartsReader
from snapmig.images.source import ImageReader
from snapmig.system.holes import next_data

__all__ = ("FilesImage", "PartsImage")


class FilesImage:
    """
    Base of images in files, watched and closed with the image.

    :ivar files: all of them
    """

    files: tuple[ImageFile, ...]
    architecture: Architecture | None = None
    remarks: tuple[str, ...] = ()

    def check_unchanged(self) -> None:
        """
        Compare the files with their state when opened.

        :raises ImageChangedError: a size or modification time differs
        """
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


class PartsImage(FilesImage):
    """
    An image with its RAM in ranges of files.

    :param parts: in the order of RAM offsets; RAM outside all parts is zero
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
        """Return a picklable function to open a reader in any process."""
        return partial(PartsReader, self.parts)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on inside a part and outside its holes."""
        for number in range(max(0, bisect_right(self._starts, start) - 1), len(self.parts)):
            part = self.parts[number]
            shift = part.file_offset - part.start
            first = max(start, part.start)
            if first < part.stop:
                found = next_data(self._fds[part.path], first + shift, part.stop + shift) - shift
                if found < part.stop:
                    return found
        return None
