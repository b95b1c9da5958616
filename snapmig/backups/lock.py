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
from snapmig.system.files import pread_all

__all__ = ("LOCK_NAME", "locked")

LOCK_NAME = ".lock"

_MAX_FACTS = 4096


@contextmanager
def locked(folder: Path, wait: float) -> Iterator[None]:
    """
    Hold a folder's lock inside of the ``with`` block.

    :param wait: seconds to wait for it; 0: not at all
    :raises LockedError: another process has it, with what it said of itself
    :raises OSError: the lock file can't be made
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - its import takes 50 ms

    path = folder / LOCK_NAME
    # A soft lock, in place of flock where a filesystem has none, would outlive a killed run.
    lock = FileLock(path, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        waited = f", still so after {wait:g} s" if wait else ""
        message = f"locked by {_holder(path)}{waited}"
        raise LockedError(message, path=str(folder)) from None
    try:
        _write(path, _facts())
        yield
    finally:
        with suppress(OSError):
            _write(path, b"")
        lock.release()


def _facts() -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"pid": os.getpid(), "host": os.uname().nodename, "since": started}
    return json.dumps(facts).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            facts = json.loads(pread_all(file.fileno(), _MAX_FACTS, 0))
        return f"process {int(facts['pid'])} on {facts['host']!s} since {facts['since']!s}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
