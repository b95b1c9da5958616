"""A snapshot in the making: the common interface of files and objects."""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

from snapmig.system.files import Buffer
from snapmig.system.partial import PartialFile, ResumableFile

__all__ = ("Destination", "FileDestination", "ResumableDestination")


class Destination(Protocol):
    """
    Bytes under a temporary name until :meth:`commit` renames them; a context manager.

    Leaving the ``with`` block without a commit removes them.

    :ivar remote: they go to another host
    :ivar fd: a file for workers to write into at any offset
    :ivar shown: its name for people
    :ivar needed: bytes needed by the complete file
    :ivar resumed: an earlier run has written to it
    :ivar dropped: what an earlier run wrote was of no use, and is removed
    """

    remote: ClassVar[bool]
    fd: int
    shown: str
    needed: int
    resumed: bool
    dropped: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *_exc: object) -> None: ...

    @property
    def kept_parts(self) -> int | None:
        """Parts of an earlier upload that the server had; None for a file."""

    @property
    def has_room(self) -> bool:
        """True if more may be written now."""

    def advance(self, end: int) -> None:
        """Declare everything up to an offset final, besides the head."""

    def write(self, data: Buffer, offset: int) -> None:
        """Write at an offset."""

    def resize(self, size: int) -> None:
        """Set the length."""

    def sync(self) -> None:
        """Wait until everything written so far is on stable storage."""

    def commit(self, *, force: bool) -> None:
        """
        Give it its final name.

        :raises DestinationExistsError: the name was taken meanwhile, and ``force`` is not set
        """


class _Local:
    resumed = dropped = False
    kept_parts = None
    remote: ClassVar[bool] = False
    has_room: ClassVar[bool] = True  # the kernel slows down writers

    def advance(self, end: int) -> None:
        """Do nothing: the bytes are where they belong."""


class FileDestination(_Local, PartialFile):
    """A file: written in place, at the pace of the kernel."""


class ResumableDestination(_Local, ResumableFile):
    """A file that stays if the run ends early, for another run to go on."""
