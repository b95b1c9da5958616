"""
One snapshot written by several hosts: the directory beside it, where they meet.

Each host writes its own range of packets into one partial file with fixed places, and leaves a mark
once they are on stable storage. Ranges begin at a page of the index and of the page digests, so
that no two hosts write the same page, which network filesystems may send whole. Locks end with
their process.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from math import gcd
from pathlib import Path
from typing import Any

from snapmig.container.format import record_size
from snapmig.errors import DestinationExistsError, SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.sealing.key_table import KEY_TABLE_SIZE
from snapmig.stores.destination import FileDestination
from snapmig.system.files import read_small, sync_directory
from snapmig.system.partial import write_file

__all__ = ("MAX_SHARES", "SharedFile", "Shares", "share_packets")

MAX_SHARES = 1024

_PLAN = "plan.json"
_DATA = "data"
_KEYS = "keys"


def share_packets(geometry: Geometry, share: int, shares: int) -> range:
    """
    Return the packets of a share; some shares are empty if there are few packets.

    :param share: 1 for the first
    """
    size = record_size(geometry.packet_size)
    step = PAGE_SIZE // gcd(PAGE_SIZE, size)
    steps = -(-geometry.packet_count // step)
    first, end = ((steps * number // shares) * step for number in (share - 1, share))
    return range(min(first, geometry.packet_count), min(end, geometry.packet_count))


class SharedFile(FileDestination):
    """The partial file of all shares; leaving a ``with`` block does not remove it."""

    def __init__(self, data: Path, path: Path, needed: int) -> None:
        self.path = path
        self.shown = str(path)
        self.needed = needed
        self.partial_path = data
        self.fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Shares:
    """
    The directory for the shares of a snapshot.

    :param path: the snapshot
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.with_name(f".{path.name[:200]}.shares")

    @property
    def data(self) -> Path:
        """The partial file."""
        return self.folder / _DATA

    def join(self, plan: Mapping[str, Any]) -> None:
        """
        Begin with a plan, or join others with the same plan.

        :raises UsageError: the others have another plan
        """
        made = self.folder.with_name(f"{self.folder.name}.{os.urandom(6).hex()}")
        with suppress(FileExistsError):
            made.mkdir(mode=0o700)
            try:
                write_file(made / _DATA, b"")
                write_file(made / _PLAN, json.dumps(plan).encode())
                if not self.folder.exists():
                    _rename_new(made, self.folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        begun = self.plan()
        for key, value in plan.items():
            if begun.get(key) != value:
                message = f"shares have {key} {begun.get(key)!r}, and this one has {value!r}"
                raise UsageError(message, path=str(self.path))

    def key_table(self, first: bytes) -> bytes:
        """
        Return the key table of all shares: one given before, else this one.

        :param first: empty to look only
        """
        path = self.folder / _KEYS
        if first:
            with suppress(DestinationExistsError):
                write_file(path, first)
        return read_small(path, KEY_TABLE_SIZE) if path.exists() else b""

    def plan(self) -> dict[str, Any]:
        """
        Return the plan of these shares.

        :raises UsageError: there is none yet
        """
        return self._read(self.folder / _PLAN, "no share of it was begun, or it is committed")

    @property
    def count(self) -> int:
        """
        Number of shares.

        :raises SnapmigError: missing from the plan
        """
        count = self.plan().get("shares")
        if not isinstance(count, int) or not 1 <= count <= MAX_SHARES:
            message = f"has {count!r} shares, expected 1 to {MAX_SHARES}"
            raise SnapmigError(message, path=str(self.folder / _PLAN))
        return count

    def mark(self, share: int) -> dict[str, Any] | None:
        """Return the mark of a finished share, None if it is not finished."""
        path = self._mark(share)
        return self._read(path, "is gone") if path.exists() else None

    def put_mark(self, share: int, content: Mapping[str, Any]) -> None:
        """Mark a share as finished."""
        write_file(self._mark(share), json.dumps(content).encode(), force=True)

    def drop_mark(self, share: int) -> None:
        """Mark a share as not finished."""
        self._mark(share).unlink(missing_ok=True)
        sync_directory(self.folder)

    @contextmanager
    def held(self, *shares: int) -> Iterator[None]:
        """
        Hold the locks of shares inside the block.

        :raises SnapmigError: another process holds one of them
        """
        with ExitStack() as stack:
            for share in shares:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                fd = os.open(self.folder / f"share-{share}.lock", flags, 0o600)
                stack.callback(os.close, fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    message = f"share {share} is being written by another process"
                    raise SnapmigError(message, path=str(self.path)) from error
            yield

    def remove(self) -> None:
        """Remove the directory with its contents."""
        (self.folder / _PLAN).unlink(missing_ok=True)  # from here on nobody joins
        shutil.rmtree(self.folder)
        sync_directory(self.folder.parent)

    def _mark(self, share: int) -> Path:
        return self.folder / f"share-{share}.json"

    def _read(self, path: Path, missing: str) -> dict[str, Any]:
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise UsageError(missing, path=str(self.path)) from error
        except ValueError as error:
            raise SnapmigError(f"not the mark of a share: {error}", path=str(path)) from error
        if not isinstance(content, dict):
            raise SnapmigError("not the mark of a share", path=str(path))
        return content


def _rename_new(made: Path, folder: Path) -> None:
    # A directory replaces only an empty one: of several that begin at once, the first wins.
    with suppress(OSError):
        made.rename(folder)
    sync_directory(folder.parent)
