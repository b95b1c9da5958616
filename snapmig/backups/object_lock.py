"""
The lock of a guest in object storage: an object created only if there is none.

Object storage has no flock(2), and nothing there ends with a process. The lock therefore has two
halves. A file on this host, locked with flock(2), excludes the runs of this host; it records the
random word of the object made by this host. The object excludes other hosts. After a killed run,
the next one on its host finds the word in the file and takes the object over. No lock expires: a
save may take long, and nobody can tell a slow host from a dead one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from snapmig.backups.lock import (
    MAX_FACTS,
    LockedError,
    facts,
    file_locked,
    holder,
    read,
    waited,
    write,
)
from snapmig.backups.stored import RepositoryError, is_gone
from snapmig.errors import SnapmigError, StoreError
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import ObjectUrl
from snapmig.stores.opening import load_s3

__all__ = ("ObjectLock", "same_server", "state_folder")

POLL_S = 1.0
"""Seconds between two looks at a lock that is waited for."""

_THERE = ("PreconditionFailed", "ConditionalRequestConflict")
"""Refusals to make what is there."""
_TAKEN = (*_THERE, "NoSuchUpload")
"""Refusals of a lock that someone has, perhaps we."""
_PORTS = {"http": 80, "https": 443}

_PROOFS = 2
"""Locks that a server makes where one is, until it is known to ignore the condition."""


class ObjectLock:
    """
    A lock held inside the ``with`` block.

    :param url: the object
    :param shown: the locked thing, for messages
    :param wait: seconds to wait for it; 0: not at all
    :raises LockedError: another process has it; with the holder's own description
    :raises StoreError: the object can't be made or read, or the server ignores conditions
    :raises OSError: this host's file can't be made
    """

    def __init__(self, url: ObjectUrl, shown: str, wait: float) -> None:
        self._url = url
        self._shown = shown
        self._wait = wait
        self._word = ""

    def __enter__(self) -> ObjectLock:
        end = time.monotonic() + self._wait
        client = load_s3().ObjectClient(self._url)
        self._path = _own_file(f"{same_server(client.endpoint)} {self._url}")
        with ExitStack() as stack:
            stack.enter_context(file_locked(self._path, self._shown, self._wait))
            self._word = _word(read(self._path)) or secrets.token_hex(16)
            write(self._path, self._facts())
            try:
                self._take(client, end)
            except BaseException:
                self._give_back()
                raise
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._stack:
            self._give_back()

    def _give_back(self) -> None:
        # If the server can't be asked, the word stays, and the next run here has the lock.
        with suppress(SnapmigError, OSError):
            client = load_s3().ObjectClient(self._url, patient=False)
            if _word(self._look(client)) == self._word:
                client.remove()
            write(self._path, b"")

    def check(self) -> None:
        """
        Refuse to go on without the lock.

        :raises LockedError: it is not ours any more
        """
        found = self._look(load_s3().ObjectClient(self._url))
        if _word(found) != self._word:
            who = f"now {holder(found)} has it" if found else "the object is not there"
            raise LockedError(f"the lock was taken away, {who}", path=self._shown)

    def _take(self, client: Any, end: float) -> None:
        found = self._look(client)
        if _word(found) == self._word:  # of a run that was killed
            self._prove(client)
            client.put(self._facts(), create=False)
            return
        while True:
            if not found:
                self._make(client)
                found = self._look(client)
                if _word(found) == self._word:
                    return
            left = end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(POLL_S, left))
            found = self._look(client)
        message = f"locked by {holder(found)}{waited(self._wait)}"
        words = f"{message}; where that run is dead, remove {self._url}"
        raise LockedError(words, path=self._shown)

    def _make(self, client: Any) -> None:
        try:
            client.put(self._facts(), create=True)
        except RefusedError as error:
            if error.code not in _TAKEN:
                raise
            # Checked even after a refusal: perhaps only the answer was lost.
            if _word(self._look(client)) != self._word:
                return
        self._prove(client)

    def _prove(self, client: Any) -> None:
        # The lock relies on the server refusing to create an existing object, and some servers do
        # create it. So we provoke this refusal first, with the very request that makes a lock: on
        # a server that does not refuse, nobody ever has the lock, not even the first. The request
        # can only overwrite our own lock, or that of another run finding out in the same way.
        # Twice, since a person, or a late request of an earlier holder, may have removed ours.
        for _ in range(_PROOFS):
            try:
                client.put(self._facts(), create=True)
            except RefusedError as error:
                if error.code in _THERE:
                    return
                raise
        message = (
            f"the server at {client.endpoint} ignores If-None-Match, so two runs can't be kept "
            "apart: expected it to refuse to make an object that is there"
        )
        raise StoreError(message, path=str(self._url))

    def _look(self, client: Any) -> bytes:
        try:
            found: bytes = client.start(MAX_FACTS).start
        except RefusedError as error:
            if is_gone(error):
                return b""
            raise
        return found

    def _facts(self) -> bytes:
        return facts(word=self._word)


def state_folder() -> Path:
    """
    Return the folder of this host's halves of locks.

    :raises RepositoryError: there is none
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError as error:
        message = "this user has no home for the locks of object storage: set XDG_STATE_HOME"
        raise RepositoryError(message) from error
    return base / "snapmig" / "locks"


def same_server(endpoint: str) -> str:
    """Return a server's address in the one spelling that all of its own become."""
    parts = urlsplit(endpoint.strip())
    host = (parts.hostname or "").rstrip(".")
    if host.endswith(".amazonaws.com"):  # a bucket's name is one for all of its addresses
        return "amazonaws.com"
    port = parts.port or _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _own_file(name: str) -> Path:
    folder = state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.lock"


def _word(raw: bytes) -> str:
    try:
        said = json.loads(raw)
        return said["word"] if isinstance(said["word"], str) else ""
    except (ValueError, KeyError, TypeError):
        return ""
