"""
A repository: a folder per guest, with its snapshots, a lock, and nothing else.

There is no index to get out of step: kind, time and parent of a snapshot are read from its
superblock each time. Foreign files are reported and never touched. A folder is a directory, or a
key prefix in object storage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from snapmig.backups.lock import locked
from snapmig.backups.object_lock import ObjectLock
from snapmig.backups.stored import (
    LOCK_NAME,
    Contents,
    RepositoryError,
    StoredSnapshot,
    contents_of,
    is_leftover,
    is_snapshot,
    new_name,
    read_one,
)
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import Location, ObjectUrl
from snapmig.stores.opening import load_s3
from snapmig.system.files import free_bytes, sync_directory

__all__ = ("GuestFolder", "guest_folder")

_MAX_OBJECTS = 100_000
"""More than any rule keeps: who has so many under a guest's prefix has something else there."""


class GuestFolder(Protocol):
    """
    The folder of one guest; it need not exist yet.

    A server is contacted by the first method call, so its errors appear there.

    :ivar shown: its name
    """

    shown: str

    def check_repository(self) -> None:
        """
        Refuse a missing repository.

        :raises RepositoryError: there is no such directory; a missing bucket refuses requests
        """

    def exists(self) -> bool:
        """Return whether the folder may have contents."""

    def make(self) -> None:
        """
        Make the folder if it is missing, but never the repository itself.

        A backup disk that is not mounted must not pass for an empty one.

        :raises RepositoryError: there is no repository
        """

    def locked(self, wait: float) -> AbstractContextManager[None]:
        """
        Hold the folder's lock, a file or an object.

        :param wait: seconds to wait for it; 0: not at all
        :raises LockedError: another process has it
        :raises OSError: the lock file can't be made
        :raises StoreError: the object can't be made
        """

    def read(self) -> Contents:
        """
        Return the contents of the folder; nothing if it does not exist.

        :raises OSError: it can't be read
        :raises StoreError: it can't be listed, or a snapshot can't be read for now
        :raises RepositoryError: there is far more than snapshots
        """

    def new_name(self, now: datetime) -> str:
        """Return an unused name for a snapshot of this moment."""

    def place(self, name: str) -> Location:
        """Return the place of a snapshot, existing or new."""

    def remove_leftovers(self) -> list[str]:
        """Remove leftovers of killed runs. Return their names. The lock must be held."""

    def remove(self, snapshot: StoredSnapshot) -> None:
        """
        Remove a snapshot, durably. The lock must be held.

        :raises LockedError: someone took the lock away
        :raises StoreError: it can't be removed
        """

    def free_bytes(self) -> int | None:
        """Return the free bytes there, or None if unknown."""


def guest_folder(repository: Location, guest: str) -> GuestFolder:
    """Return a guest's folder in a repository."""
    if isinstance(repository, Path):
        return _Directory(repository, guest)
    return _Prefix(repository, guest)


class _Directory(GuestFolder):
    def __init__(self, repository: Path, guest: str) -> None:
        self.repository = repository
        self.path = repository / guest
        self.shown = str(self.path)

    def make(self) -> None:
        self.check_repository()
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return
        sync_directory(self.repository)

    def check_repository(self) -> None:
        if not self.repository.is_dir():
            message = "there is no such directory: make the repository, or mount it"
            raise RepositoryError(message, path=str(self.repository))

    def exists(self) -> bool:
        return self.path.exists()

    def locked(self, wait: float) -> AbstractContextManager[None]:
        return locked(self.path, wait)

    def read(self) -> Contents:
        found, foreign = [], []
        for entry in self._entries():
            if is_snapshot(entry.name) and entry.is_file(follow_symlinks=False):
                found.append(read_one(entry.name, Path(entry.path)))
            elif entry.name != LOCK_NAME and not is_leftover(entry.name):
                foreign.append(entry.name)
        return contents_of(found, foreign)

    def new_name(self, now: datetime) -> str:
        return new_name(now, lambda name: os.path.lexists(self.path / name))

    def place(self, name: str) -> Path:
        return self.path / name

    def remove_leftovers(self) -> list[str]:
        found = [entry.name for entry in self._entries() if is_leftover(entry.name)]
        for name in found:
            (self.path / name).unlink()
        return found

    def remove(self, snapshot: StoredSnapshot) -> None:
        self.place(snapshot.name).unlink()
        sync_directory(self.path)

    def free_bytes(self) -> int | None:
        return free_bytes(self.path if self.path.exists() else self.repository)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return


class _Prefix(GuestFolder):
    def __init__(self, repository: ObjectUrl, guest: str) -> None:
        self.url = repository.inside(guest)
        self.shown = str(self.url)
        self._lock: ObjectLock | None = None

    def check_repository(self) -> None:
        pass  # a missing bucket refuses the first request

    def exists(self) -> bool:
        return True  # only a list would tell

    def make(self) -> None:
        pass

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        with ObjectLock(self.url.inside(LOCK_NAME), self.shown, wait) as self._lock:
            try:
                yield
            finally:
                self._lock = None

    def read(self) -> Contents:
        found, foreign = [], []
        for name in self._names():
            if is_snapshot(name):
                found.append(name)
            elif name != LOCK_NAME:
                foreign.append(name)
        # Several requests at a time.
        items = load_s3().together(lambda name: read_one(name, self.place(name)), found)
        return contents_of(items, foreign)

    def new_name(self, now: datetime) -> str:
        # The save takes it only if it is still unused then.
        taken = set(self._names())
        return new_name(now, taken.__contains__)

    def place(self, name: str) -> ObjectUrl:
        return self.url.inside(name)

    def remove_leftovers(self) -> list[str]:
        # Unfinished uploads, where these rights may list them.
        client = self._client()
        try:
            left = sorted(upload for upload in client.uploads() if _is_ours(upload[0]))
            for name, upload in left:
                client.drop(name, upload)
        except RefusedError:  # the bucket's own rule removes them, see docs/s3.md
            return []
        return [f"parts of {name}" for name, _ in left]

    def remove(self, snapshot: StoredSnapshot) -> None:
        if self._lock is not None:
            self._lock.check()
        load_s3().ObjectClient(self.place(snapshot.name)).remove()

    def free_bytes(self) -> int | None:
        return None  # a bucket has no size

    def _client(self) -> Any:
        return load_s3().PrefixClient(self.place(LOCK_NAME))

    def _names(self) -> list[str]:
        found = sorted(self._client().entries(_MAX_OBJECTS + 1))
        if len(found) > _MAX_OBJECTS:
            message = f"has more than {_MAX_OBJECTS} objects, expected a guest's snapshots"
            raise RepositoryError(message, path=self.shown)
        return found


def _is_ours(name: str) -> bool:
    # Also uploads of locks: a run that loses one asks again, and learns the holder.
    return is_snapshot(name) or name == LOCK_NAME
