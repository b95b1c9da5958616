"""Snapshots opened when somebody looks into them; those that nobody reads are closed again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.mounts.tree import Folder, Node
from snapmig.operations.runs.mounted_files import SnapshotFolder
from snapmig.operations.runs.random_access import RandomAccess

__all__ = ("MOST_IDLE", "OpenSnapshots", "ShelvedFolder")

MOST_IDLE = 8
"""Open snapshots that nobody reads: one takes some descriptors, and its share of the cache."""


@dataclass
class _Opened:
    memory: RandomAccess
    folder: SnapshotFolder
    users: int = 0


class OpenSnapshots:
    """
    Open snapshots by their names.

    :param open_one: opens a snapshot
    :param report: as of :class:`SnapshotFolder`
    """

    def __init__(
        self, open_one: Callable[[str], RandomAccess], report: Callable[[str], None]
    ) -> None:
        self._open_one = open_one
        self._report = report
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, _Opened] = OrderedDict()
        self._seen: dict[str, bytes] = {}

    def take(self, name: str) -> SnapshotFolder:
        """
        Return a snapshot's folder, which stays open until it is given back.

        :raises SnapmigError: it can't be opened, or is another than before under this name
        """
        with self._lock:
            found = self._opened.get(name)
            if found is None:
                found = self._opened[name] = self._load(name)
            self._opened.move_to_end(name)
            found.users += 1
            return found.folder

    def give_back(self, name: str) -> None:
        """Let a snapshot be closed, when others are needed more."""
        with self._lock:
            self._opened[name].users -= 1
            idle = [name for name, each in self._opened.items() if not each.users]
            for name in idle[: max(0, len(idle) - MOST_IDLE)]:
                self._opened.pop(name).memory.close()

    @contextmanager
    def using(self, name: str) -> Iterator[SnapshotFolder]:
        """Have a snapshot open during a block."""
        folder = self.take(name)
        try:
            yield folder
        finally:
            self.give_back(name)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].memory.close()

    def _load(self, name: str) -> _Opened:
        memory = self._open_one(name)
        identity = memory.file.superblock.root
        if self._seen.setdefault(name, identity) != identity:
            memory.close()
            message = "is another snapshot than when it was first looked into"
            raise SnapmigError(message, path=name)
        return _Opened(memory, SnapshotFolder(memory, self._report))


class _Shelved:
    # A node of a snapshot that may be closed meanwhile.
    def __init__(self, snapshots: OpenSnapshots, name: str, path: tuple[str, ...]) -> None:
        self._snapshots = snapshots
        self._name = name
        self._path = path
        with self._node() as node:
            self.modified_ns = node.modified_ns

    @contextmanager
    def _node(self) -> Iterator[Any]:
        with self._snapshots.using(self._name) as folder:
            yield _walk(folder, self._path)


class ShelvedFolder(_Shelved):
    """
    A folder of a snapshot that may be closed meanwhile.

    :param path: names from the snapshot's folder to this one
    """

    def __init__(self, snapshots: OpenSnapshots, name: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(snapshots, name, path)

    def names(self) -> Iterable[str]:
        """Return the names in it."""
        with self._node() as node:
            return list(node.names())

    def child(self, name: str) -> Node:
        """Return a node by its name."""
        with self._node() as node:
            is_folder = isinstance(node.child(name), Folder)
        kind = ShelvedFolder if is_folder else ShelvedFile
        return kind(self._snapshots, self._name, (*self._path, name))


class ShelvedFile(_Shelved):
    """A file of a snapshot that may be closed meanwhile, but not while it is read."""

    def __init__(self, snapshots: OpenSnapshots, name: str, path: tuple[str, ...]) -> None:
        super().__init__(snapshots, name, path)
        with self._node() as node:
            self.size: int = node.size
            self.used: int = node.used
        self._file: Any = None

    def open(self) -> None:
        """Keep the snapshot open."""
        self._file = _walk(self._snapshots.take(self._name), self._path)
        try:
            self._file.open()
        except BaseException:
            self._snapshots.give_back(self._name)
            raise

    def close(self) -> None:
        """Let the snapshot be closed."""
        self._file.close()
        self._snapshots.give_back(self._name)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer only at the end."""
        content: bytes = self._file.read(offset, size)
        return content

    def next_data(self, offset: int) -> int:
        """Return the first place from an offset on that is no hole, the size if there is none."""
        return int(self._file.next_data(offset))

    def next_hole(self, offset: int) -> int:
        """Return the first place from an offset on that is a hole, the size if there is none."""
        return int(self._file.next_hole(offset))


def _walk(folder: SnapshotFolder, path: tuple[str, ...]) -> Any:
    node: Any = folder
    for name in path:
        node = node.child(name)
    return node
