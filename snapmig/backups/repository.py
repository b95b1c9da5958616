"""
A repository: a folder for each guest, with its snapshots, a lock, and nothing else.

There is no index that could get out of step: what a snapshot is, when it was made and what it
builds on is read from its superblock, each time. What is not ours is reported and never touched.
A folder is a directory, or in object storage what has the same prefix.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from snapmig.backups.bucket import GuestPrefix
from snapmig.backups.directory import GuestDirectory
from snapmig.backups.stored import Contents, StoredSnapshot
from snapmig.stores.location import Location

__all__ = ("GuestFolder", "guest_folder")


class GuestFolder(Protocol):
    """
    The folder of one guest; it need not exist yet.

    :ivar shown: its name
    """

    shown: str

    def check_repository(self) -> None:
        """Refuse a repository that is not there."""

    def exists(self) -> bool:
        """Return whether there may be anything in it."""

    def make(self) -> None:
        """Make the folder where it is missing, but never the repository itself."""

    def locked(self, wait: float) -> AbstractContextManager[None]:
        """
        Hold the folder's lock.

        :param wait: seconds to wait for it; 0: not at all
        """

    def read(self) -> Contents:
        """Return what is in the folder; nothing where it does not exist."""

    def new_name(self, now: datetime) -> str:
        """Return a free name for a snapshot of this moment."""

    def place(self, name: str) -> Location:
        """Return where the snapshot of a name is, or is to be."""

    def remove_leftovers(self) -> list[str]:
        """Remove what killed runs left, and say what it was; only for who has the lock."""

    def remove(self, snapshot: StoredSnapshot) -> None:
        """Remove a snapshot, durably; only for who has the lock."""

    def free_bytes(self) -> int | None:
        """Return the space that is free there, None where nobody can say."""


def guest_folder(repository: Location, guest: str) -> GuestFolder:
    """Return a guest's folder in a repository."""
    if isinstance(repository, Path):
        return GuestDirectory(repository, guest)
    return GuestPrefix(repository, guest)
