"""``run --mount``: a guest with its memory mapped from a mounted snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.mounts.session import check_mount
from snapmig.operations.mount import mount, mounted_snapshot, umount
from snapmig.operations.runs.device_stream import DEVICE_STATE, has_device_state
from snapmig.operations.runs.launch import Launched
from snapmig.operations.runs.mapped_guest import mapped_backends

__all__ = ("check", "load_state", "mapped_backends", "mounted")


def check(source: SnapshotFile, place: Path, working_set: str | os.PathLike[str] | None) -> None:
    """
    Check that a snapshot's guest can be mapped from a mount at a place, now or soon.

    :raises UsageError: it can't, or the mount there is of another snapshot
    :raises SnapmigError: nothing can be mounted there
    """
    if not has_device_state(source):
        message = "has no device state of QEMU apart from its RAM, so that can't be mapped"
        raise UsageError(message, path=source.shown)
    known = mounted_snapshot(place)
    if known is None:
        check_mount(place)
        return
    if known != source.superblock.snapshot_id.hex():
        raise UsageError("another snapshot is mounted there", path=str(place))
    if working_set is not None:
        message = "a working set is for a new mount, this one is there already"
        raise UsageError(message, path=str(place))


@contextmanager
def mounted(
    snapshot: str | os.PathLike[str], place: Path, options: Mapping[str, Any]
) -> Iterator[None]:
    """
    Mount a snapshot for the length of the block; a mount that is there stays.

    :param options: further arguments of :func:`snapmig.mount`
    """
    if mounted_snapshot(place) is not None:
        yield
        return
    mount(snapshot, place, **options)
    try:
        yield
    finally:
        umount(place, lazy=True)


def load_state(started: Launched, place: Path) -> None:
    """
    Give a QEMU its device state from a mount, and let it run.

    :raises SnapmigError: QEMU could not, with its reason
    """
    # QEMU takes as long to start as these imports, and then the server to make the state.
    from snapmig.guests.file_migrations import load_stream  # noqa: PLC0415
    from snapmig.guests.guest import Guest  # noqa: PLC0415

    fd = os.open(place / DEVICE_STATE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        started.wait_for_monitor()
        with started.blamed(), Guest(str(started.monitor)) as guest:
            load_stream(guest, fd)
            guest.run()
    finally:
        os.close(fd)
