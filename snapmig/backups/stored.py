"""
Contents of a guest's folder, read from the superblocks of its snapshots each time.

The name of a snapshot tells when its save began, in UTC, and has no other meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from snapmig.container.format import SUPERBLOCK_SIZE, Superblock
from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError, StoreError
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import Location
from snapmig.stores.opening import open_source

__all__ = (
    "LOCK_NAME",
    "SUFFIX",
    "Contents",
    "RepositoryError",
    "StoredSnapshot",
    "UnreadableSnapshot",
    "contents_of",
    "is_gone",
    "is_leftover",
    "is_snapshot",
    "new_name",
    "read_one",
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RepositoryError(SnapmigError):
    """The repository, or the requested part of it, does not exist."""


SUFFIX = ".snap"
LOCK_NAME = ".lock"

_NAME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(?:_\d{1,6})?\.snap"
_SNAPSHOT = re.compile(_NAME, re.ASCII)
_LEFTOVER = re.compile(rf"\.{_NAME}\.(?:[0-9a-f]{{12}}\.partial|\d+\.mapped-ram)", re.ASCII)


def is_snapshot(name: str) -> bool:
    """Return whether a name has the form of a run's snapshot."""
    return _SNAPSHOT.fullmatch(name) is not None


def is_leftover(name: str) -> bool:
    """Return whether a name is that of a temporary file, possibly left by a killed run."""
    return _LEFTOVER.fullmatch(name) is not None


def new_name(now: datetime, is_taken: Callable[[str], bool]) -> str:
    """Return an unused name for a snapshot of a moment; a second one in a second is ``_2``."""
    start = f"{now.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}"
    names = (f"{start}{'' if number == 1 else f'_{number}'}{SUFFIX}" for number in count(1))
    return next(name for name in names if not is_taken(name))


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """
    A snapshot in a repository, from its superblock; sizes are in bytes.

    :param time: completion, in UTC
    :param ram_size: of the guest; 0 if the tables are damaged
    :param problem: fault found in its tables, with the exit code
    """

    name: str
    path: Location
    snapshot_id: bytes
    parent_id: bytes | None
    parent_root: bytes
    root: bytes
    time: datetime
    ram_size: int
    file_size: int
    disk_size: int
    problem: str | None = None
    exit_code: int = 0

    @property
    def kind(self) -> str:
        """``full``, or ``incremental`` for one with a parent."""
        return "full" if self.parent_id is None else "incremental"


@dataclass(frozen=True, slots=True)
class UnreadableSnapshot:
    """A file with a snapshot's name that can't be identified, with the reason."""

    name: str
    path: Location
    problem: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a guest's folder; ``snapshots`` are in the order of their times."""

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


def contents_of(
    found: list[StoredSnapshot | UnreadableSnapshot | None], foreign: list[str]
) -> Contents:
    """Return the entries found in a folder, in order; None stands for one removed meanwhile."""
    snapshots = [item for item in found if isinstance(item, StoredSnapshot)]
    snapshots.sort(key=lambda item: (item.time, item.name))
    unreadable = tuple(item for item in found if isinstance(item, UnreadableSnapshot))
    return Contents(tuple(snapshots), unreadable, tuple(foreign))


def is_gone(error: Exception) -> bool:
    """Return whether an error means that a file or an object does not exist any more."""
    if isinstance(error, RefusedError):
        return error.code in ("NoSuchKey", "404")
    return isinstance(error, FileNotFoundError)


def read_one(name: str, place: Location) -> StoredSnapshot | UnreadableSnapshot | None:
    """
    Return the description of one file or object with a snapshot's name, None if it is gone.

    :raises StoreError: object storage failed, no fault of the snapshot
    """
    try:
        try:
            with SnapshotFile(str(place), locked=True) as file:
                return _stored(name, place, file.superblock, file.disk_size, file.geometry.ram_size)
        except StoreError:
            raise
        except SnapmigError as error:
            return _read_damaged(name, place, error)
    except (OSError, StoreError) as error:
        if is_gone(error):
            return None
        if isinstance(error, RefusedError):  # this one alone, such as an archived object
            return UnreadableSnapshot(name, place, error.message, error.exit_code)
        if isinstance(error, OSError):
            return UnreadableSnapshot(name, place, error.strerror or str(error), 1)
        raise


def _read_damaged(
    name: str, place: Location, error: SnapmigError
) -> StoredSnapshot | UnreadableSnapshot:
    # Its superblock alone may still name its parent.
    source = open_source(str(place))
    try:
        raw, disk_size = source.read(0, SUPERBLOCK_SIZE), source.disk_size
    finally:
        source.close()
    try:
        superblock = Superblock.unpack(raw)
    except SnapmigError:
        return UnreadableSnapshot(name, place, error.message, error.exit_code)
    return _stored(name, place, superblock, disk_size, 0, error)


def _stored(
    name: str,
    place: Location,
    block: Superblock,
    disk_size: int,
    ram_size: int,
    error: SnapmigError | None = None,
) -> StoredSnapshot:
    return StoredSnapshot(
        name=name,
        path=place,
        snapshot_id=block.snapshot_id,
        parent_id=block.parent_id if any(block.parent_id) else None,
        parent_root=block.parent_root,
        root=block.root,
        time=_EPOCH + timedelta(microseconds=block.created_ns // 1000),
        ram_size=ram_size,
        file_size=block.file_size,
        disk_size=disk_size,
        problem=None if error is None else error.message,
        exit_code=0 if error is None else error.exit_code,
    )
