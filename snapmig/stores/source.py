"""
Bytes that a snapshot is read from: what a file and an object have in common.

A source gives ranges of bytes. What many processes need of it, such as an index, is *kept*: from
then on no request is made for it. What will be read soon can be announced, so that it is there in
time.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from snapmig.errors import SnapmigError
from snapmig.stores.location import ObjectUrl, load_s3, parse_location
from snapmig.system.files import descriptor_path, pread_all
from snapmig.system.holes import Extents

__all__ = ("ByteSource", "FileSource", "Range", "SourcePlan", "open_source")

Range = tuple[int, int]
"""An offset and a length in bytes."""


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """
    What another process needs to open the same bytes, picklable.

    :param name: a path, or the URL of an object
    :param version: of an object, the ETag that every byte must be of
    :param size: of an object, in bytes
    :param settings: of an object, what the environment says of its server; with secrets
    :param kept_path: of an object, a file with the ranges that are kept, at their own offsets
    """

    name: str
    version: str | None = None
    size: int = 0
    kept_path: str = ""
    kept: tuple[Range, ...] = ()
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class ByteSource(Protocol):
    """
    Bytes of known length that do not change; for one thread at a time.

    :ivar remote: a read takes a round trip over a network
    :ivar size: in bytes
    :ivar disk_size: what they take where they are, in bytes
    """

    remote: ClassVar[bool]
    size: int
    disk_size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes, fewer only where they end."""

    def keep(self, offset: int, length: int) -> None:
        """Have a range at hand, for the processes of :meth:`plan`, too."""

    def written(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the ranges between two offsets, first and end, that are not holes."""

    def prefetch(self, ranges: Sequence[Range]) -> None:
        """Say what will be read next."""

    def plan(self) -> SourcePlan:
        """Return what other processes need; good while this one is open."""

    def close(self) -> None:
        """Give everything back."""


class FileSource:
    """
    A regular file.

    :raises SnapmigError: something else
    :raises OSError: it can't be opened
    """

    remote: ClassVar[bool] = False

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._closing = weakref.finalize(self, os.close, self._fd)  # a worker's has no other end
        self._closing.atexit = False
        facts = os.fstat(self._fd)
        if not stat.S_ISREG(facts.st_mode):
            self.close()
            raise SnapmigError("not a regular file")
        self.size = facts.st_size
        self.disk_size = facts.st_blocks * 512
        self._extents = Extents(self._fd, self.size)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes, fewer only where the file ends."""
        return pread_all(self._fd, length, offset)

    def keep(self, offset: int, length: int) -> None:
        """Do nothing: all of a file is at hand."""

    def written(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the ranges between two offsets that are not holes."""
        return self._extents.between(start, stop)

    def prefetch(self, ranges: Sequence[Range]) -> None:
        """Do nothing: the kernel reads ahead."""

    def plan(self) -> SourcePlan:
        """Return a path by which other processes open this very file."""
        return SourcePlan(descriptor_path(self._fd))

    def close(self) -> None:
        """Close the file."""
        self._closing()
        self._fd = -1


def open_source(name: str | SourcePlan) -> ByteSource:
    """
    Open a file, or the object of an ``s3://`` URL.

    :raises StoreError: the object can't be read
    :raises SnapmigError: not a regular file
    :raises OSError: the file can't be opened
    """
    plan = name if isinstance(name, SourcePlan) else SourcePlan(name)
    location = parse_location(plan.name)
    if not isinstance(location, ObjectUrl):
        return FileSource(plan.name)
    load_s3()
    # Only here: what it brings takes 300 ms to import.
    from snapmig.stores.object import ObjectSource  # noqa: PLC0415

    return ObjectSource(location, plan)
