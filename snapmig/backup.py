"""
``snapmig backup`` as functions: scheduled backups of the guests in a configuration file.

docs/backups.md is the reference of the file. As with :func:`snapmig.batch`, a failure of one guest
stops no other and raises nothing: it is in the outcome. ``nice`` and ``ionice`` of the file are for
the command line; these functions leave the caller's priorities alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from snapmig.backups.check import CheckOptions, CheckResult
from snapmig.backups.check import check as check_snapshots
from snapmig.backups.config import Config, GuestConfig, load_config
from snapmig.backups.listing import ListedSnapshot, list_snapshots
from snapmig.backups.overview.guests import GuestState, SnapshotState
from snapmig.backups.overview.write import write_page
from snapmig.backups.prune import PruneResult
from snapmig.backups.prune import prune as prune_guests
from snapmig.backups.report import Failure, Note, Remark, Report, Warned
from snapmig.backups.restore import RestoreOptions, parse_moment, restore_guest
from snapmig.backups.result import BackupResult
from snapmig.backups.run import RunOptions
from snapmig.backups.run import run as run_backup
from snapmig.backups.template import TEMPLATE
from snapmig.operations.options.parse import FormatName
from snapmig.operations.progress import Progress, ProgressCallback
from snapmig.operations.restore import RestoreResult
from snapmig.stores.location import check_new_name
from snapmig.system.files import check_destination
from snapmig.system.partial import write_file

__all__ = (
    "BackupResult",
    "CheckResult",
    "Failure",
    "GuestState",
    "ListedSnapshot",
    "Outcome",
    "PruneResult",
    "SnapshotState",
    "Warned",
    "check",
    "init",
    "list",
    "prune",
    "report",
    "restore",
    "run",
)

PathLike = str | os.PathLike[str]
GuestProgress = Callable[[str, Progress], None]
"""Called with a guest's name and its progress."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """
    Results by guest, and everything else to report.

    :param results: in the order of the configuration
    :param warnings: in order; of a skipped guest, for example
    :param errors: failures, a guest each or several
    :param exit_code: the first error's, else 6 after a warning, else 0
    """

    results: tuple[Result, ...]
    warnings: tuple[Warned, ...]
    errors: tuple[Failure, ...]
    exit_code: int


def run(
    config: PathLike,
    guests: Sequence[str] = (),
    *,
    dry_run: bool = False,
    prune: bool = True,
    full: bool = False,
    lock_wait: float | None = None,
    jobs: int | None = None,
    monitor_timeout: float | None = None,
    metrics: PathLike | None = None,
    progress: GuestProgress | None = None,
) -> Outcome[BackupResult]:
    """
    Save guests, and remove their snapshots outside the rules.

    :param guests: names of guests; default: all
    :param dry_run: only plan
    :param prune: remove snapshots outside the rules
    :param full: save all in full, without a parent
    :param lock_wait: seconds to wait for each guest's lock; default: as configured
    :param jobs: worker processes; default: as configured
    :param monitor_timeout: seconds to wait for each answer of a guest's monitor
    :param metrics: file for the textfile collector of Prometheus's node exporter, written anew
    :param progress: called with a guest's name and its progress now and then
    :returns: sizes in bytes, times in seconds
    :raises UsageError: an invalid configuration, or an unknown guest
    :raises OSError: the configuration can't be read
    """
    options = RunOptions(
        dry_run=dry_run,
        prune=prune,
        full=full,
        lock_wait=lock_wait,
        jobs=jobs,
        monitor_timeout=monitor_timeout,
        metrics=None if metrics is None else Path(metrics),
        progress=_shower(progress),
    )
    return _collect(config, guests, partial(run_backup, options=options))


def list(config: PathLike, guests: Sequence[str] = ()) -> Outcome[ListedSnapshot]:  # noqa: A001
    """
    List the snapshots of guests, the oldest first.

    :param guests: names of guests; default: all
    :returns: sizes in bytes, ages in seconds
    :raises UsageError: an invalid configuration, or an unknown guest
    :raises OSError: the configuration can't be read
    """
    return _collect(config, guests, list_snapshots)


def check(
    config: PathLike,
    guests: Sequence[str] = (),
    *,
    everything: bool = False,
    days: int = 1,
    jobs: int | None = None,
    progress: GuestProgress | None = None,
) -> Outcome[CheckResult]:
    """
    Check snapshots: the chains and tables of all, and the contents of those due.

    :param guests: names of guests; default: all
    :param everything: read all contents, regardless of the configuration
    :param days: read the parts of this many days up to today
    :param jobs: worker processes; default: the processors available to this process
    :param progress: called with a guest's name and its progress now and then
    :raises UsageError: an invalid configuration, or an unknown guest
    :raises OSError: the configuration can't be read
    """
    options = CheckOptions(everything=everything, days=days, jobs=jobs, progress=_shower(progress))
    return _collect(config, guests, partial(check_snapshots, options=options))


def prune(
    config: PathLike,
    guests: Sequence[str] = (),
    *,
    dry_run: bool = False,
    lock_wait: float | None = None,
    progress: GuestProgress | None = None,
) -> Outcome[PruneResult]:
    """
    Remove snapshots outside the rules.

    :param guests: names of guests; default: all
    :param dry_run: only decide
    :param lock_wait: seconds to wait for each guest's lock; default: as configured
    :param progress: called with a guest's name and the bytes on disk that are removed now and then
    :returns: a decision on each snapshot, with sizes in bytes
    :raises UsageError: an invalid configuration, or an unknown guest
    :raises OSError: the configuration can't be read
    """
    work = partial(prune_guests, dry_run=dry_run, lock_wait=lock_wait, progress=_shower(progress))
    return _collect(config, guests, work)


def report(
    config: PathLike,
    output: PathLike,
    guests: Sequence[str] = (),
    *,
    force: bool = False,
    maps: bool = True,
    progress: GuestProgress | None = None,
) -> Outcome[GuestState]:
    """
    Write an HTML page about guests and their snapshots, from the repository.

    :param output: the file, or a directory for ``index.html``
    :param guests: names of guests; default: all
    :param force: replace an existing page
    :param maps: with a picture of the memory of each guest's newest snapshot
    :param progress: called with a guest's name and a phase, without numbers
    :returns: the states; guests that need attention are warnings
    :raises UsageError: an invalid configuration, an unknown guest, or another kind of file
    :raises DestinationExistsError: the page exists and ``force`` is not set
    :raises OSError: the configuration can't be read, or the page not written
    """
    shower = _shower(progress)
    work = partial(write_page, output=Path(output), force=force, maps=maps, progress=shower)
    return _collect(config, guests, work)


def restore(  # noqa: PLR0913 - the options of the command line
    config: PathLike,
    guest: str,
    target: str,
    *,
    before: datetime | str | None = None,
    snapshot: str | None = None,
    format: FormatName | None = None,  # noqa: A002 - the command line's word
    jobs: int | None = None,
    force: bool = False,
    in_place: bool = False,
    for_qemu: bool = False,
    keep_going: bool = False,
    monitor_timeout: float | None = None,
    progress: ProgressCallback | None = None,
    notice: Callable[[str], None] | None = None,
) -> RestoreResult:
    """
    Restore a guest from its last snapshot, or from an earlier one.

    :param target: the ``image`` of :func:`snapmig.restore`; so are the options not listed here
    :param before: choose the last snapshot before this moment: with a time zone, or a text such as
        ``2026-11-23T02:15`` in local time, or ``3d`` for three days ago
    :param snapshot: name of the snapshot
    :raises UsageError: an invalid configuration or argument, or an unknown guest
    :raises SnapmigError: there is no such snapshot, or an error listed for :func:`snapmig.restore`
    :raises OSError: a file can't be read or written; with the path
    """
    loaded = load_config(config)
    options = RestoreOptions(
        before=parse_moment(before) if isinstance(before, str) else before,
        snapshot=snapshot,
        format=format,
        jobs=jobs,
        force=force,
        in_place=in_place,
        for_qemu=for_qemu,
        keep_going=keep_going,
        monitor_timeout=monitor_timeout,
        progress=progress,
        notice=notice,
    )
    return restore_guest(loaded, loaded.guest(guest), target, options)[1]


def init(config: PathLike, *, force: bool = False) -> None:
    """
    Write a commented configuration to start from.

    :param force: replace an existing file
    :raises UsageError: not the name of a file
    :raises DestinationExistsError: the file exists and ``force`` is not set
    :raises OSError: it can't be written
    """
    check_new_name(os.fspath(config))
    check_destination(Path(config), force=force)
    write_file(Path(config), TEMPLATE.encode(), force=force)


def _shower(progress: GuestProgress | None) -> Any:
    return lambda guest: nullcontext(progress and partial(progress, guest))


def _collect(
    path: PathLike,
    names: Sequence[str],
    work: Callable[[Config, Sequence[GuestConfig], Report], None],
) -> Outcome[Any]:
    config = load_config(path)
    events: Any = []
    report = Report(events.append)
    work(config, [config.guest(name) for name in names] or config.guests, report)
    others = (Failure, Note, Remark, Warned)
    return Outcome(
        results=tuple(event for event in events if not isinstance(event, others)),
        warnings=tuple(event for event in events if isinstance(event, Warned)),
        errors=tuple(event for event in events if isinstance(event, Failure)),
        exit_code=report.exit_code,
    )
