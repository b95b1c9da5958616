"""Contents of a repository, as recorded in its snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.plan import Chains
from snapmig.backups.report import Report
from snapmig.backups.repository import guest_folder
from snapmig.backups.stored import Contents
from snapmig.errors import SnapmigError

__all__ = ("ListedSnapshot", "list_snapshots")


@dataclass(frozen=True, slots=True)
class ListedSnapshot:
    """
    A snapshot of a guest; sizes are in bytes.

    :param time: completion, ISO 8601 in UTC
    :param age_seconds: negative for a snapshot from the future
    :param parent: name of its parent; None also if that is missing
    :param problem: reason that it can't be restored, judged by superblocks and tables
    """

    guest: str
    snapshot: str
    path: str
    snapshot_id: str | None
    time: str | None
    age_seconds: int | None
    kind: str | None
    parent: str | None
    parent_id: str | None
    ram_size: int | None
    file_size: int | None
    disk_size: int | None
    problem: str | None


def list_snapshots(config: Config, guests: Sequence[GuestConfig], report: Report) -> None:
    """List the snapshots of guests, the oldest first. Faults are warnings."""
    for guest in guests:
        folder = guest_folder(config.repository, guest.name)
        try:
            folder.check_repository()
            _list_folder(guest, folder.read(), report)
        except (SnapmigError, OSError) as error:
            report.fail(error, guest.name)


def _list_folder(guest: GuestConfig, contents: Contents, report: Report) -> None:
    chains, now = Chains(contents.snapshots), datetime.now(UTC)
    for item in contents.snapshots:
        parent, problem = chains.parent(item), chains.problem(item)
        if problem is not None:
            report.warn(f"{item.name}: {problem}", guest.name)
        report.result(
            ListedSnapshot(
                guest=guest.name,
                snapshot=item.name,
                path=str(item.path),
                snapshot_id=item.snapshot_id.hex(),
                time=item.time.isoformat(timespec="seconds"),
                age_seconds=int((now - item.time).total_seconds()),
                kind=item.kind,
                parent=None if parent is None else parent.name,
                parent_id=None if item.parent_id is None else item.parent_id.hex(),
                ram_size=item.ram_size,
                file_size=item.file_size,
                disk_size=item.disk_size,
                problem=problem,
            )
        )
    if not contents.snapshots:
        report.note("no snapshots", guest.name)
    for bad in contents.unreadable:
        report.warn(f"{bad.name}: {bad.problem}", guest.name)
        nothing = (None,) * 9
        report.result(
            ListedSnapshot(guest.name, bad.name, str(bad.path), *nothing, problem=bad.problem)
        )
    for name in contents.foreign:
        report.warn(f"{name} is not of a backup, and is left alone", guest.name)
