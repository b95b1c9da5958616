"""
Bytes to read a snapshot from: the common interface of files and objects.

A source returns ranges of bytes. A range needed by many processes, such as an index, is *kept*:
from then on no request is made for it. Ranges for later reads can be announced, so that they arrive
in time.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from snapmig.system.files import descriptor_path, open_regular, pread_all
from snapmig.system.holes import Extents

__all__ = ("ByteSource", "FileSource", "Range", "SourcePlan")

Range = tuple[int, int]
"""An offset and a length in bytes."""


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """
    Everything another process needs to open the same bytes; picklable.

    :param name: a path, or the URL of an object
    :param version: ETag of the object; every byte must be of this version
    :param size: of the object, in bytes
    :param settings: the environment's settings of the object's server, secrets included
    :param kept_path: a file with the object's kept ranges, at their own offsets
    """

    name: str
    version: str | None = None
    size: int = 0
    kept_path: str = ""
    kept: tuple[Range, ...] = ()
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class ByteSource(Protocol):
    """
    Bytes of constant content and known length; for one thread at a time.

    :ivar remote: a read takes a round trip over a network
    :ivar size: in bytes
    :ivar disk_size: space taken on the storage, in bytes
    """

    remote: ClassVar[bool]
    size: int
    disk_size: int

    @property
    def repeated_requests(self) -> int:
        """Number of requests so far that took another attempt."""

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; fewer only at their end."""

    def keep(self, offset: int, length: int) -> None:
        """Keep a range at hand, for the processes of :meth:`plan`, too."""

    def written(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the ranges between two offsets, first and end, without the holes."""

    def prefetch(self, ranges: Sequence[Range]) -> None:
        """Announce ranges for later reads."""

    def limit_requests(self, count: int) -> None:
        """Fetch no more of them at once, from now on."""

    def count_arrivals(self, add: Callable[[int], None]) -> None:
        """Tell a function of the announced bytes as they arrive, in any thread."""

    def plan(self) -> SourcePlan:
        """Return everything needed by other processes, valid while this source is open."""

    def close(self) -> None:
        """Release everything."""


class FileSource:
    """
    A regular file.

    :param shown: its name in errors; default: its path
    :raises SnapmigError: not a regular file
    :raises OSError: it can't be opened
    """

    remote: ClassVar[bool] = False
    repeated_requests = 0

    def __init__(self, path: str, shown: str | None = None) -> None:
        self._shown = shown or path
        self._fd = open_regular(path)
        self._closing = weakref.finalize(self, os.close, self._fd)  # a worker's has no other end
        self._closing.atexit = False
        facts = os.fstat(self._fd)
        self.size = facts.st_size
        self.disk_size = facts.st_blocks * 512
        self._extents = Extents(self._fd, self.size)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; fewer only at the end of the file."""
        try:
            return pread_all(self._fd, length, offset)
        except OSError as error:
            error.filename = self._shown
            raise

    def keep(self, offset: int, length: int) -> None:
        """Do nothing: all of a file is at hand."""

    def written(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the ranges between two offsets, without the holes."""
        return self._extents.between(start, stop)

    def prefetch(self, ranges: Sequence[Range]) -> None:
        """Do nothing: the kernel reads ahead."""

    def limit_requests(self, count: int) -> None:
        """Do nothing, likewise."""

    def count_arrivals(self, add: Callable[[int], None]) -> None:
        """Do nothing, likewise."""

    def plan(self) -> SourcePlan:
        """Return a path for other processes to open this very file."""
        return SourcePlan(descriptor_path(self._fd))

    def close(self) -> None:
        """Close the file."""
        self._closing()
        self._fd = -1
