"""
A repository: a folder per guest, with its snapshots, a lock, and nothing else.

There is no index to get out of step: kind, time and parent of a snapshot are read from its
superblock each time. Foreign files are reported and never touched. A folder is a directory, or a
key prefix in object storage.
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
        """Refuse a missing repository."""

    def exists(self) -> bool:
        """Return whether the folder may have contents."""

    def make(self) -> None:
        """Make the folder if it is missing, but never the repository itself."""

    def locked(self, wait: float) -> AbstractContextManager[None]:
        """
        Hold the folder's lock.

        :param wait: seconds to wait for it; 0: not at all
        """

    def read(self) -> Contents:
        """Return the contents of the folder; nothing if it does not exist."""

    def new_name(self, now: datetime) -> str:
        """Return an unused name for a snapshot of this moment."""

    def place(self, name: str) -> Location:
        """Return the place of a snapshot, existing or new."""

    def remove_leftovers(self) -> list[str]:
        """Remove leftovers of killed runs. Return their names. The lock must be held."""

    def remove(self, snapshot: StoredSnapshot) -> None:
        """Remove a snapshot, durably. The lock must be held."""

    def free_bytes(self) -> int | None:
        """Return the free bytes there, or None if unknown."""


def guest_folder(repository: Location, guest: str) -> GuestFolder:
    """Return a guest's folder in a repository."""
    if isinstance(repository, Path):
        return GuestDirectory(repository, guest)
    return GuestPrefix(repository, guest)
