"""
The lock of a guest: one run at a time changes its folder.

It uses flock(2), so a killed run leaves no lock behind. The contents of the file are for waiting
people and decide nothing. The file stays: if it were removed, two runs could each hold a lock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from snapmig.backups.stored import LOCK_NAME
from snapmig.errors import SnapmigError
from snapmig.system.files import pread_all

__all__ = (
    "LOCK_NAME",
    "MAX_FACTS",
    "LockedError",
    "facts",
    "file_locked",
    "holder",
    "locked",
    "read",
    "waited",
    "write",
)


class LockedError(SnapmigError):
    """Another run holds the guest's lock and did not release it in time."""

    exit_code = 7


MAX_FACTS = 4096
"""Bytes of a lock that are read."""


@contextmanager
def locked(folder: Path, wait: float) -> Iterator[None]:
    """
    Hold a folder's lock inside the ``with`` block.

    :param wait: seconds to wait for it; 0: not at all
    :raises LockedError: another process has it; with the holder's own description
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
    Hold the lock on a file. Its contents belong to the caller.

    :param shown: the locked thing, for messages
    :raises LockedError: another process has it
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - its import takes 50 ms

    # A soft lock, used instead of flock on some filesystems, would outlive a killed run.
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
    """Return the description of a lock's holder."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"pid": os.getpid(), "host": os.uname().nodename, "since": started}
    return json.dumps({**found, **more}).encode() + b"\n"


def write(path: Path, content: bytes) -> None:
    """Write a lock's file."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


def read(path: Path) -> bytes:
    """Return the start of a lock's file; nothing if it can't be read."""
    try:
        with path.open("rb") as file:
            return pread_all(file.fileno(), MAX_FACTS, 0)
    except OSError:
        return b""


def holder(raw: bytes) -> str:
    """Return the holder of a lock in words."""
    try:
        said = json.loads(raw)
        return f"process {int(said['pid'])} on {said['host']!s} since {said['since']!s}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def waited(wait: float) -> str:
    """Return the waiting time in words, for a refusal."""
    return f", still so after {wait:g} s" if wait else ""
