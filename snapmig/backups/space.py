"""Room for a snapshot, checked before a guest is disturbed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from snapmig.backups.config import GuestConfig
from snapmig.backups.plan import Plan
from snapmig.backups.repository import GuestFolder
from snapmig.backups.stored import StoredSnapshot
from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.guests.name import Domain
from snapmig.guests.wait import MonitorWait
from snapmig.operations.options.parse import is_guest, parse_guest
from snapmig.units import format_size

__all__ = ("check_space", "expected_size")


def expected_size(
    snapshots: Sequence[StoredSnapshot], plan: Plan, guest: GuestConfig, wait: MonitorWait
) -> tuple[int, str] | None:
    """
    Return the likely size of the next snapshot in bytes, and the basis of the estimate.

    It is the size of the last snapshot of its kind, or else the space that the guest's RAM takes
    now, because memory never written to is zero. None if nothing is known.

    :param wait: for a guest's monitor
    """
    kinds = ("full",) if plan.parent is None else ("incremental", "full")
    for kind in kinds:
        sizes = [item.disk_size for item in snapshots if item.kind == kind]
        if sizes:
            return sizes[-1], f"the last {kind} one"
    size = _source_size(guest, wait)
    return None if size is None else (size, "the guest's RAM")


def check_space(folder: GuestFolder, expected: tuple[int, str] | None) -> None:
    """
    Refuse a save that is not likely to fit, if the folder knows its free space.

    :raises NoSpaceError: with the free and the expected bytes
    """
    if expected is None or (free := folder.free_bytes()) is None:
        return
    needed, why = expected
    if free < needed:
        message = (
            f"{format_size(free)} are free on its filesystem, about {format_size(needed)} are "
            f"needed, as {why} takes"
        )
        raise NoSpaceError(message, path=folder.shown)


def _source_size(guest: GuestConfig, wait: MonitorWait) -> int | None:
    if is_guest(guest.source):
        return _guest_size(parse_guest(guest.source, guest.save.get("connect")), wait)
    path = Path(guest.source)
    if path.is_dir():
        return sum(item.stat().st_blocks * 512 for item in path.iterdir())
    return path.stat().st_blocks * 512


def _guest_size(source: str | Domain, wait: MonitorWait) -> int | None:
    # Imported only here: asyncio takes 30 ms.
    from snapmig.guests.guest import Guest  # noqa: PLC0415

    with Guest(source, wait) as guest:
        if guest.unshared is not None:
            return None  # QEMU writes a file first, and only QEMU knows its size
        try:
            with guest.open_memory(os.O_RDONLY) as opened:
                return sum(os.fstat(fd).st_blocks * 512 for fd in opened)
        except (SnapmigError, OSError):  # the save has the better message
            return None
