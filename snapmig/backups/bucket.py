"""A guest's folder in object storage: a key prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from snapmig.backups.object_lock import ObjectLock
from snapmig.backups.stored import (
    LOCK_NAME,
    Contents,
    RepositoryError,
    StoredSnapshot,
    contents_of,
    is_snapshot,
    new_name,
    read_one,
)
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import ObjectUrl
from snapmig.stores.opening import load_s3

__all__ = ("GuestPrefix",)

MAX_OBJECTS = 100_000
"""More than any rule keeps: who has so many under a guest's prefix has something else there."""


class GuestPrefix:
    """
    A prefix under the repository's; see :class:`~snapmig.backups.repository.GuestFolder`.

    The server is contacted by the first method call, so errors appear there.
    """

    def __init__(self, repository: ObjectUrl, guest: str) -> None:
        self.url = repository.inside(guest)
        self.shown = str(self.url)
        self._lock: ObjectLock | None = None

    def check_repository(self) -> None:
        """Do nothing: a missing bucket refuses the first request."""

    def exists(self) -> bool:
        """Return True: only a list would tell."""
        return True

    def make(self) -> None:
        """Do nothing: a prefix needs no making."""

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        """
        Hold the lock, an object.

        :raises LockedError: another process has it
        :raises StoreError: it can't be made
        """
        with ObjectLock(self.url.inside(LOCK_NAME), self.shown, wait) as self._lock:
            try:
                yield
            finally:
                self._lock = None

    def read(self) -> Contents:
        """
        Return the contents of the prefix, with several requests at a time.

        :raises StoreError: it can't be listed, or a snapshot can't be read for now
        :raises RepositoryError: there is far more than snapshots
        """
        found, foreign = [], []
        for name in self._names():
            if is_snapshot(name):
                found.append(name)
            elif name != LOCK_NAME:
                foreign.append(name)
        items = load_s3().together(lambda name: read_one(name, self.place(name)), found)
        return contents_of(items, foreign)

    def new_name(self, now: datetime) -> str:
        """Return an unused name. The save takes it only if it is still unused then."""
        taken = set(self._names())
        return new_name(now, taken.__contains__)

    def place(self, name: str) -> ObjectUrl:
        """Return the object of a snapshot."""
        return self.url.inside(name)

    def remove_leftovers(self) -> list[str]:
        """Drop unfinished uploads of killed runs, where these rights may list them."""
        client = self._client()
        try:
            left = sorted(upload for upload in client.uploads() if _is_ours(upload[0]))
            for name, upload in left:
                client.drop(name, upload)
        except RefusedError:  # the bucket's own rule removes them, see docs/s3.md
            return []
        return [f"parts of {name}" for name, _ in left]

    def remove(self, snapshot: StoredSnapshot) -> None:
        """
        Remove a snapshot.

        :raises LockedError: someone took the lock away
        :raises StoreError: it can't be removed
        """
        if self._lock is not None:
            self._lock.check()
        load_s3().ObjectClient(self.place(snapshot.name)).remove()

    def free_bytes(self) -> int | None:
        """Return None: a bucket has no size."""
        return None

    def _client(self) -> Any:
        return load_s3().PrefixClient(self.place(LOCK_NAME))

    def _names(self) -> list[str]:
        found = sorted(self._client().entries(MAX_OBJECTS + 1))
        if len(found) > MAX_OBJECTS:
            message = f"has more than {MAX_OBJECTS} objects, expected a guest's snapshots"
            raise RepositoryError(message, path=self.shown)
        return found


def _is_ours(name: str) -> bool:
    # Also uploads of locks: a run that loses one asks again, and learns the holder.
    return is_snapshot(name) or name == LOCK_NAME
