"""The files of an image being saved: opened once, watched for changes, closed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeVar

from snapmig.errors import ImageChangedError, SnapmigError
from snapmig.system.files import descriptor_path, open_regular, pread_all

__all__ = ("ImageFile", "Report", "closed_on_error", "opened_files")


Report = Callable[[int, int], None]


class _Closable(Protocol):
    def close(self) -> None: ...


Opened = TypeVar("Opened", bound=_Closable)


class ImageFile:
    """
    One open file of an image.

    :param follow: follow a symbolic link; otherwise a link is refused
    :ivar report: called with bytes done and their total while it is unpacked
    :raises SnapmigError: not a regular file, or empty
    """

    def __init__(self, shown: str, *, follow: bool = True) -> None:
        self.shown = shown
        self.report: Report = lambda _done, _total: None
        try:
            self.fd = open_regular(shown, follow=follow)
        except SnapmigError as error:
            raise SnapmigError(f"image is {error.message}", path=shown) from error
        try:
            self._facts = os.fstat(self.fd)
            if self._facts.st_size == 0:
                raise SnapmigError("image is empty, expected a guest's RAM", path=shown)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def size(self) -> int:
        """Its length in bytes when opened."""
        return self._facts.st_size

    @property
    def path(self) -> str:
        """A path for other processes to open this very file."""
        return descriptor_path(self.fd)

    def read(self, offset: int, length: int) -> bytes:
        """
        Return bytes of the file's metadata.

        :raises SnapmigError: the file ends before them
        :raises OSError: they can't be read; with the path
        """
        # A place from the file itself may be beyond what the kernel takes for an offset.
        try:
            data = pread_all(self.fd, length, offset) if offset < self.size else b""
        except OSError as error:
            error.filename = self.shown
            raise
        if len(data) < length:
            end = min(self.size, offset + len(data))
            message = f"file ends at {end:#x}, expected {length} bytes from here"
            raise SnapmigError(message, path=self.shown, offset=offset)
        return data

    def check_unchanged(self) -> None:
        """
        Compare size and modification time with those at the start.

        :raises ImageChangedError: something wrote to the image while it was read
        """
        after = os.fstat(self.fd)
        if after.st_size != self._facts.st_size:
            message = f"image had {self._facts.st_size} bytes at the start, now {after.st_size}"
            raise ImageChangedError(message, path=self.shown)
        if after.st_mtime_ns != self._facts.st_mtime_ns:
            message = "image was written to while it was read, pause the guest first"
            raise ImageChangedError(message, path=self.shown)

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def opened_files(paths: Iterable[str], *, follow: bool = True) -> Iterator[list[ImageFile]]:
    """
    Give the files of an image, to keep; an error inside the ``with`` block closes them.

    :raises SnapmigError: as listed for :class:`ImageFile`
    """
    with ExitStack() as stack:
        files = []
        for path in paths:
            files.append(ImageFile(path, follow=follow))
            stack.callback(files[-1].close)
        yield files
        stack.pop_all()


@contextmanager
def closed_on_error(opened: Opened) -> Iterator[Opened]:
    """Give a file, or something like it, to keep; an error inside the ``with`` block closes it."""
    try:
        yield opened
    except BaseException:
        opened.close()
        raise
