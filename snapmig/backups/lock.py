"""
The lock of a guest: one run at a time changes what is in its folder.

It is flock(2)'s, so a run that is killed leaves none behind. What stands in the file is for people
who wait and decides nothing. The file stays: removing it would let two runs each have a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from snapmig.backups.errors import LockedError
from snapmig.backups.names import LOCK_NAME
from snapmig.system.files import pread_all

__all__ = (
    "LOCK_NAME",
    "MAX_FACTS",
    "facts",
    "file_locked",
    "holder",
    "locked",
    "read",
    "waited",
    "write",
)

MAX_FACTS = 4096
"""Bytes of a lock that are read."""


@contextmanager
def locked(folder: Path, wait: float) -> Iterator[None]:
    """
    Hold a folder's lock inside of the ``with`` block.

    :param wait: seconds to wait for it; 0: not at all
    :raises LockedError: another process has it, with what it said of itself
    :raises OSError: the lock file can't be made
    """
    path = folder / LOCK_NAME
    with file_locked(path, str(folder), wait):
        try:
            write(path, facts())
            yield
        finally:
            with suppress(OSError):
                write(path, b"")


@contextmanager
def file_locked(path: Path, shown: str, wait: float) -> Iterator[None]:
    """
    Hold the lock that is a file's; what stands in it is the caller's.

    :param shown: what it is the lock of, for messages
    :raises LockedError: another process has it
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - its import takes 50 ms

    # A soft lock, in place of flock where a filesystem has none, would outlive a killed run.
    lock = FileLock(path, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise LockedError(f"locked by {holder(read(path))}{waited(wait)}", path=shown) from None
    try:
        yield
    finally:
        lock.release()


def facts(**more: str) -> bytes:
    """Return what a lock says of who has it."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"pid": os.getpid(), "host": os.uname().nodename, "since": started}
    return json.dumps({**found, **more}).encode() + b"\n"


def write(path: Path, content: bytes) -> None:
    """Write a lock's file."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


def read(path: Path) -> bytes:
    """Return the start of a lock's file, nothing where it can't be read."""
    try:
        with path.open("rb") as file:
            return pread_all(file.fileno(), MAX_FACTS, 0)
    except OSError:
        return b""


def holder(raw: bytes) -> str:
    """Return in words who has a lock, by what it says."""
    try:
        said = json.loads(raw)
        return f"process {int(said['pid'])} on {said['host']!s} since {said['since']!s}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def waited(wait: float) -> str:
    """Return how a refusal tells how long a lock was waited for."""
    return f", still so after {wait:g} s" if wait else ""
