"""Restores by time: choose a guest's snapshot of a moment, and restore it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.durations import parse_duration
from snapmig.backups.plan import Chains
from snapmig.backups.repository import guest_folder
from snapmig.backups.stored import Contents, RepositoryError, StoredSnapshot
from snapmig.errors import CorruptSnapshotError, UsageError
from snapmig.guests.wait import NoticeCallback
from snapmig.operations.options.parse import FormatName
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.restore import RestoreResult, restore

__all__ = ("RestoreOptions", "choose", "parse_moment", "restore_guest")


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The snapshot to restore, by default the last, and the options of :func:`snapmig.restore`."""

    before: datetime | None = None
    snapshot: str | None = None
    format: FormatName | None = None
    jobs: int | None = None
    force: bool = False
    in_place: bool = False
    for_qemu: bool = False
    keep_going: bool = False
    monitor_timeout: float | None = None
    progress: ProgressCallback | None = None
    notice: NoticeCallback | None = None


def parse_moment(text: str, now: datetime | None = None) -> datetime:
    """
    Return the moment of ``2026-11-23``, ``2026-11-23T02:15:00Z`` or ``3d`` (ago).

    Without a zone it is local time; a day alone is its first moment.

    :raises UsageError: neither a time nor a duration
    """
    now = datetime.now(UTC) if now is None else now
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return parse_duration(text).before(now.astimezone())
    except UsageError:
        message = (
            f"time is {text!r}, expected one like 2026-11-23, 2026-11-23T02:15 or "
            "2026-11-23T02:15:00Z, or how long ago, like 3d or 12h"
        )
        raise UsageError(message) from None


def choose(contents: Contents, options: RestoreOptions) -> StoredSnapshot:
    """
    Return the snapshot of a name, or the last one before a moment, or the last one.

    :raises RepositoryError: there is none
    :raises CorruptSnapshotError: it can't be restored; no other is taken in its place
    """
    if options.snapshot is not None:
        found = contents.named(options.snapshot)
        wanted = f"no snapshot is named {options.snapshot!r}"
    else:
        # A snapshot from the future was made under a wrong clock, so it may not be the last.
        before = options.before or datetime.now().astimezone()
        fitting = [item for item in contents.snapshots if item.time < before]
        found = fitting[-1] if fitting else None
        wanted = f"there is no snapshot from before {before:%Y-%m-%d %H:%M:%S %z}"
    if found is None:
        raise RepositoryError(wanted)
    if not isinstance(found, StoredSnapshot):
        raise CorruptSnapshotError(found.problem, path=str(found.path))
    problem = Chains(contents.snapshots).problem(found)
    if problem is not None:
        raise CorruptSnapshotError(problem, path=str(found.path))
    return found


def restore_guest(
    config: Config, guest: GuestConfig, target: str, options: RestoreOptions
) -> tuple[StoredSnapshot, RestoreResult]:
    """
    Restore a guest from a moment.

    :param target: the image argument of :func:`snapmig.restore`, or ``qmp:SOCKET``
    :returns: the chosen snapshot, and the result of the restore
    :raises RepositoryError: there is no such snapshot
    :raises SnapmigError: as :func:`snapmig.restore`
    """
    folder = guest_folder(config.repository, guest.name)
    folder.check_repository()
    try:
        snapshot = choose(folder.read(), options)
    except RepositoryError as error:
        raise RepositoryError(error.message, path=folder.shown) from error
    arguments = {field.name: getattr(options, field.name) for field in fields(options)}
    del arguments["before"], arguments["snapshot"]
    return snapshot, restore(str(snapshot.path), target, keys=guest.keys, **arguments)
