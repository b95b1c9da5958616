"""Trees of files and folders to be mounted, as the server sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

__all__ = ("BytesFile", "File", "Folder", "Node", "StaticFolder", "WritableFile")


_KEPT = 16 << 20
"""Most bytes of contents kept from a look at their size until the first reader has closed them."""


class File(Protocol):
    """
    A file; all methods may be called by any thread.

    The size never changes, and contents only by writes.
    """

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def used(self) -> int:
        """Bytes that are not in holes, more or less."""

    @property
    def modified_ns(self) -> int:
        """Time of the last change, in nanoseconds since 1970."""

    def open(self) -> None:
        """Note one more reader."""

    def close(self) -> None:
        """Note one reader less."""

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer only at the end."""

    def next_data(self, offset: int) -> int:
        """Return the first place from an offset on that is no hole, the size if there is none."""

    def next_hole(self, offset: int) -> int:
        """Return the first place from an offset on that is a hole, the size if there is none."""


@runtime_checkable
class WritableFile(File, Protocol):
    """A file that takes writes within its size."""

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes."""

    def sync(self) -> None:
        """Wait until what was written is on stable storage."""


@runtime_checkable
class Folder(Protocol):
    """
    A folder; all methods may be called by any thread.

    :ivar modified_ns: as of a file
    """

    @property
    def modified_ns(self) -> int:
        """Time of the last change, in nanoseconds since 1970."""

    def names(self) -> Iterable[str]:
        """Return the names in it."""

    def child(self, name: str) -> Node:
        """
        Return a node by its name.

        :raises KeyError: there is none
        """


Node = File | Folder


class StaticFolder:
    """A folder with the same nodes all the time."""

    def __init__(self, nodes: Mapping[str, Node], modified_ns: int) -> None:
        self._nodes = nodes
        self.modified_ns = modified_ns

    def names(self) -> Iterable[str]:
        """Return the names in it."""
        return self._nodes

    def child(self, name: str) -> Node:
        """Return a node by its name."""
        return self._nodes[name]


class BytesFile:
    """
    A small file whose contents are made when they are first needed, and kept while it is open.

    :param size: its length, None if only the contents tell
    """

    def __init__(self, load: Callable[[], bytes], modified_ns: int, size: int | None) -> None:
        self._load = load
        self._size = size
        self._lock = threading.Lock()
        self._readers = 0
        self._content: bytes | None = None
        self.modified_ns = modified_ns

    @property
    def size(self) -> int:
        """Length in bytes."""
        with self._lock:
            if self._size is None:
                content = self._load()
                self._size = len(content)
                if self._size <= _KEPT:  # the kernel asks for it just before the first opening
                    self._content = content
            return self._size

    @property
    def used(self) -> int:
        """Length in bytes: it has no holes."""
        return self.size

    def open(self) -> None:
        """Make the contents."""
        with self._lock:
            if self._content is None:
                self._content = self._load()
            self._readers += 1

    def close(self) -> None:
        """Forget the contents if nobody else reads."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._content = None

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer only at the end."""
        content = self._content
        return (self._load() if content is None else content)[offset : offset + size]

    def next_data(self, offset: int) -> int:
        """Return the offset itself."""
        return offset

    def next_hole(self, offset: int) -> int:
        """Return the end: there are no holes."""
        del offset
        return self.size
