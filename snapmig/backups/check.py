"""
Checks of stored snapshots: everything, or a part each day so that a period covers all.

Today's part follows from the snapshots' ids, so no record is needed: the day of a snapshot is its
id modulo the days of the period, and today is the number of days since 1970 modulo the same.
Chains, tables and superblocks of all are checked each time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.plan import Chains
from snapmig.backups.progress import ShowProgress, hidden
from snapmig.backups.report import Report
from snapmig.backups.repository import guest_folder
from snapmig.backups.roots import root_problems
from snapmig.backups.stored import Contents, StoredSnapshot, is_gone
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.operations.verify import verify

__all__ = ("CheckOptions", "CheckResult", "check", "is_due")


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """
    The extent of a check.

    :param everything: read all, regardless of the configuration
    :param days: read the parts of this many days up to today, to make up for days left out
    :param jobs: worker processes
    :param progress: returns, for a guest's name, a context that gives a progress callback
    """

    everything: bool = False
    days: int = 1
    jobs: int | None = None
    progress: ShowProgress = hidden


@dataclass(frozen=True, slots=True)
class CheckResult:
    """
    The outcome for one snapshot.

    :param result: ``ok`` or ``damaged``
    :param read: all of it was read; otherwise only superblock and tables
    :param problems: a sentence for each fault
    """

    guest: str
    snapshot: str
    result: str
    read: bool
    packets: int
    damaged_packets: int
    problems: tuple[str, ...]
    exit_code: int
    seconds: float


def is_due(snapshot_id: bytes, period_days: int, day: int, days: int = 1) -> bool:
    """
    Return whether a snapshot is read on a day.

    :param day: number of days since any fixed moment
    :param days: number of days' parts to read, that day's being the last
    """
    return (day - int.from_bytes(snapshot_id, "big")) % period_days < days


def check(
    config: Config, guests: Sequence[GuestConfig], report: Report, options: CheckOptions
) -> None:
    """Check the snapshots of guests. Results and errors go to the report."""
    for guest in guests:
        folder = guest_folder(config.repository, guest.name)
        try:
            folder.check_repository()
            _check_folder(folder.read(), guest, report, options)
        except (SnapmigError, OSError) as error:
            report.fail(error, guest.name)


def _check_folder(
    contents: Contents, guest: GuestConfig, report: Report, options: CheckOptions
) -> None:
    for name in contents.foreign:
        report.warn(f"{name} is not of a backup, and was skipped", guest.name)
    for item in contents.unreadable:
        report.fail(f"{item.name}: {item.problem}", guest.name, item.exit_code)
        report.result(_result(guest, item.name, [item.problem], item.exit_code))
    for name, problem in root_problems(guest.roots, contents):
        report.fail(f"{name}: {problem}", guest.name, CorruptSnapshotError.exit_code)
    chains = Chains(contents.snapshots)
    for snapshot in contents.snapshots:
        try:
            result = _check_one(snapshot, chains, guest, options)
        except (SnapmigError, OSError) as error:  # no fault of the snapshot: a worker died
            if not is_gone(error):  # removed by another run meanwhile
                report.fail(error, guest.name)
            continue
        for problem in result.problems:
            report.fail(f"{snapshot.name}: {problem}", guest.name, result.exit_code)
        report.result(result)


def _check_one(
    snapshot: StoredSnapshot, chains: Chains, guest: GuestConfig, options: CheckOptions
) -> CheckResult:
    problem = chains.problem(snapshot)
    if problem is not None:
        return _result(guest, snapshot.name, [problem], snapshot.exit_code or 3)
    if not _is_wanted(snapshot, guest, options):
        return _result(guest, snapshot.name, [], 0)
    started = time.monotonic()
    with options.progress(guest.name) as progress:
        found = verify(str(snapshot.path), jobs=options.jobs, keys=guest.keys, progress=progress)
    prefix = f"{snapshot.path}: "
    return CheckResult(
        guest=guest.name,
        snapshot=snapshot.name,
        result="ok" if found.ok else "damaged",
        read=True,
        packets=found.packets,
        damaged_packets=found.damaged_packets,
        problems=tuple(problem.removeprefix(prefix) for problem in found.problems),
        exit_code=found.exit_code,
        seconds=round(time.monotonic() - started, 3),
    )


def _is_wanted(snapshot: StoredSnapshot, guest: GuestConfig, options: CheckOptions) -> bool:
    if options.everything or guest.check_days is None:
        return True
    today = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    return is_due(snapshot.snapshot_id, guest.check_days, today, options.days)


def _result(guest: GuestConfig, name: str, problems: list[str], exit_code: int) -> CheckResult:
    return CheckResult(
        guest=guest.name,
        snapshot=name,
        result="damaged" if problems else "ok",
        read=False,
        packets=0,
        damaged_packets=0,
        problems=tuple(problems),
        exit_code=exit_code,
        seconds=0.0,
    )
