"""A guest's folder as a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from snapmig.backups.lock import locked
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
from snapmig.system.files import free_bytes, sync_directory

__all__ = ("GuestDirectory",)


class GuestDirectory:
    """A directory in the repository's; see :class:`~snapmig.backups.repository.GuestFolder`."""

    def __init__(self, repository: Path, guest: str) -> None:
        self.repository = repository
        self.path = repository / guest
        self.shown = str(self.path)

    def make(self) -> None:
        """
        Make the directory if it is missing, but never the repository itself.

        A backup disk that is not mounted must not pass for an empty one.

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
        Refuse a missing repository.

        :raises RepositoryError: it is no directory
        """
        if not self.repository.is_dir():
            message = "there is no such directory: make the repository, or mount it"
            raise RepositoryError(message, path=str(self.repository))

    def exists(self) -> bool:
        """Return whether the directory exists."""
        return self.path.exists()

    def locked(self, wait: float) -> AbstractContextManager[None]:
        """
        Hold the lock, a file.

        :raises LockedError: another process has it
        :raises OSError: the lock file can't be made
        """
        return locked(self.path, wait)

    def read(self) -> Contents:
        """
        Return the contents of the directory; nothing if it does not exist.

        :raises OSError: it can't be read
        """
        found, foreign = [], []
        for entry in self._entries():
            if is_snapshot(entry.name) and entry.is_file(follow_symlinks=False):
                found.append(read_one(entry.name, Path(entry.path)))
            elif entry.name != LOCK_NAME and not is_leftover(entry.name):
                foreign.append(entry.name)
        return contents_of(found, foreign)

    def new_name(self, now: datetime) -> str:
        """Return an unused name for a snapshot of this moment."""
        return new_name(now, lambda name: os.path.lexists(self.path / name))

    def place(self, name: str) -> Path:
        """Return the path of a snapshot."""
        return self.path / name

    def remove_leftovers(self) -> list[str]:
        """Remove temporary files of killed runs. Return their names."""
        found = [entry.name for entry in self._entries() if is_leftover(entry.name)]
        for name in found:
            (self.path / name).unlink()
        return found

    def remove(self, snapshot: StoredSnapshot) -> None:
        """Remove a snapshot, durably."""
        self.place(snapshot.name).unlink()
        sync_directory(self.path)

    def free_bytes(self) -> int | None:
        """Return the free bytes of its filesystem."""
        return free_bytes(self.path if self.path.exists() else self.repository)

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
