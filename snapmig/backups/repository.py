"""
A repository: a folder for each guest, with its snapshots, a lock, and nothing else.

There is no index that could get out of step: what a snapshot is, when it was made and what it
builds on is read from its superblock, each time. Its name is only a name; it says when the save
began, in UTC. What is not ours is reported and never touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from snapmig.backups.errors import RepositoryError
from snapmig.backups.lock import LOCK_NAME
from snapmig.container.format import SUPERBLOCK_SIZE, Superblock
from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError
from snapmig.system.files import pread_all, sync_directory

__all__ = ("SUFFIX", "Contents", "GuestFolder", "StoredSnapshot", "UnreadableSnapshot")

SUFFIX = ".snap"

_NAME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(?:_\d{1,6})?\.snap"
_SNAPSHOT = re.compile(_NAME, re.ASCII)
_LEFTOVER = re.compile(rf"\.{_NAME}\.(?:[0-9a-f]{{12}}\.partial|\d+\.mapped-ram)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """
    A snapshot in a repository, from its superblock; sizes are in bytes.

    :param time: when it was complete, in UTC
    :param ram_size: of the guest; 0 where the tables that say it are damaged
    :param problem: what is wrong with it, as far as its tables show, with its exit code
    """

    name: str
    path: Path
    snapshot_id: bytes
    parent_id: bytes | None
    parent_digest: bytes
    index_digest: bytes
    time: datetime
    ram_size: int
    file_size: int
    disk_size: int
    problem: str | None = None
    exit_code: int = 0

    @property
    def kind(self) -> str:
        """``full``, or ``incremental`` for one that builds on a parent."""
        return "full" if self.parent_id is None else "incremental"


@dataclass(frozen=True, slots=True)
class UnreadableSnapshot:
    """A file with the name of a snapshot that does not say what it is, with the reason."""

    name: str
    path: Path
    problem: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a guest's folder; ``snapshots`` are in the order of their times."""

    snapshots: tuple[StoredSnapshot, ...] = ()
    unreadable: tuple[UnreadableSnapshot, ...] = ()
    foreign: tuple[str, ...] = ()

    def named(self, name: str) -> StoredSnapshot | UnreadableSnapshot | None:
        """Return the snapshot of a name, with or without its suffix."""
        items: list[StoredSnapshot | UnreadableSnapshot] = [*self.snapshots, *self.unreadable]
        for item in items:
            if item.name in (name, name + SUFFIX):
                return item
        return None


class GuestFolder:
    """The folder of one guest; it need not exist yet."""

    def __init__(self, repository: Path, guest: str) -> None:
        self.repository = repository
        self.path = repository / guest

    def make(self) -> None:
        """
        Make the folder where it is missing, but never the repository itself.

        A backup disk that is not mounted must not be mistaken for an empty one.

        :raises RepositoryError: there is no repository
        """
        self.check_repository()
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return
        sync_directory(self.repository)

    def check_repository(self) -> None:
        """
        Refuse a repository that is not there.

        :raises RepositoryError: it is no directory
        """
        if not self.repository.is_dir():
            message = "there is no such directory: make the repository, or mount it"
            raise RepositoryError(message, path=str(self.repository))

    def read(self) -> Contents:
        """
        Return what is in the folder; nothing where it does not exist.

        :raises OSError: the folder can't be read
        """
        snapshots, unreadable, foreign = [], [], []
        for entry in self._entries():
            if _SNAPSHOT.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                found = _read_snapshot(Path(entry.path))
                if isinstance(found, StoredSnapshot):
                    snapshots.append(found)
                elif found is not None:
                    unreadable.append(found)
            elif entry.name != LOCK_NAME and not _LEFTOVER.fullmatch(entry.name):
                foreign.append(entry.name)
        snapshots.sort(key=lambda item: (item.time, item.name))
        return Contents(tuple(snapshots), tuple(unreadable), tuple(foreign))

    def new_name(self, now: datetime) -> str:
        """Return a free name for a snapshot of this moment; a second one in a second is ``_2``."""
        start = f"{now.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}"
        names = (f"{start}{'' if number == 1 else f'_{number}'}{SUFFIX}" for number in count(1))
        return next(name for name in names if not os.path.lexists(self.path / name))

    def remove_leftovers(self) -> list[str]:
        """Remove what killed runs left, and return its names; only for who has the lock."""
        names = [entry.name for entry in self._entries() if _LEFTOVER.fullmatch(entry.name)]
        for name in names:
            (self.path / name).unlink()
        return names

    def remove(self, snapshot: StoredSnapshot) -> None:
        """Remove a snapshot, durably; only for who has the lock."""
        snapshot.path.unlink()
        sync_directory(self.path)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return


def _read_snapshot(path: Path) -> StoredSnapshot | UnreadableSnapshot | None:
    try:
        try:
            with SnapshotFile(str(path)) as file:
                return _stored(path, file.superblock, file.disk_size, file.geometry.ram_size)
        except SnapmigError as error:
            return _read_damaged(path, error)
    except FileNotFoundError:  # removed by another run meanwhile
        return None
    except OSError as error:
        return UnreadableSnapshot(path.name, path, error.strerror or str(error), 1)


def _read_damaged(path: Path, error: SnapmigError) -> StoredSnapshot | UnreadableSnapshot:
    # Its superblock alone may still say what it builds on.
    with path.open("rb") as file:
        raw = pread_all(file.fileno(), SUPERBLOCK_SIZE, 0)
        disk_size = os.fstat(file.fileno()).st_blocks * 512
    try:
        superblock = Superblock.unpack(raw)
    except SnapmigError:
        return UnreadableSnapshot(path.name, path, error.message, error.exit_code)
    return _stored(path, superblock, disk_size, 0, error)


def _stored(
    path: Path, block: Superblock, disk_size: int, ram_size: int, error: SnapmigError | None = None
) -> StoredSnapshot:
    return StoredSnapshot(
        name=path.name,
        path=path,
        snapshot_id=block.snapshot_id,
        parent_id=block.parent_id if any(block.parent_id) else None,
        parent_digest=block.parent_digest,
        index_digest=block.index_digest,
        time=_EPOCH + timedelta(microseconds=block.created_ns // 1000),
        ram_size=ram_size,
        file_size=block.file_size,
        disk_size=disk_size,
        problem=None if error is None else error.message,
        exit_code=0 if error is None else error.exit_code,
    )
