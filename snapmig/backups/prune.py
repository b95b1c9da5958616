"""Removal of snapshots outside the rules, children before parents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.plan import Chains
from snapmig.backups.progress import ShowProgress, hidden
from snapmig.backups.report import Report
from snapmig.backups.repository import GuestFolder, guest_folder
from snapmig.backups.retention import Candidate, Decision, Rules, decide
from snapmig.backups.roots import drop_roots
from snapmig.backups.stored import Contents, StoredSnapshot
from snapmig.errors import SnapmigError
from snapmig.operations.progress import phase_reporter

__all__ = ("PruneResult", "prune", "prune_folder")


@dataclass(frozen=True, slots=True)
class PruneResult:
    """
    The outcome for a snapshot.

    :param action: ``kept``, ``removed``, or ``would remove`` in a dry run
    :param reasons: rules that keep it; empty if none does
    """

    guest: str
    snapshot: str
    time: str
    kind: str
    action: str
    reasons: tuple[str, ...]
    disk_size: int


def prune(
    config: Config,
    guests: Sequence[GuestConfig],
    report: Report,
    *,
    dry_run: bool = False,
    lock_wait: float | None = None,
    progress: ShowProgress = hidden,
) -> None:
    """
    Remove snapshots outside the guests' rules. Errors and results go to the report.

    :param lock_wait: seconds to wait for each guest's lock; default: as configured
    :param progress: returns, for a guest's name, a context that gives a progress callback
    """
    wait = config.lock_wait if lock_wait is None else lock_wait
    for guest in guests:
        folder = guest_folder(config.repository, guest.name)
        try:
            folder.check_repository()
            if not folder.exists():
                continue
            if dry_run:
                _prune_one(folder, guest, report, progress, dry_run=True)
            else:
                with folder.locked(wait):
                    folder.remove_leftovers()
                    _prune_one(folder, guest, report, progress, dry_run=False)
        except (SnapmigError, OSError) as error:
            report.fail(error, guest.name)


def _prune_one(
    folder: GuestFolder,
    guest: GuestConfig,
    report: Report,
    progress: ShowProgress,
    *,
    dry_run: bool,
) -> None:
    contents = folder.read()
    for name in future_snapshots(contents.snapshots):
        report.warn(f"{name} says it is from the future, and is left alone", guest.name)
    decisions = decisions_of(contents, guest.rules)
    with progress(guest.name) as show:
        tell = phase_reporter(show, "")
        found = prune_folder(folder, contents, guest, report, dry_run=dry_run, tell=tell)
    removed = set(found)
    by_name = {item.name: item for item in contents.snapshots}
    for decision in reversed(decisions):
        item = by_name[decision.candidate.name]
        gone = item.name in removed
        report.result(
            PruneResult(
                guest=guest.name,
                snapshot=item.name,
                time=item.time.isoformat(timespec="seconds"),
                kind=item.kind,
                action=("would remove" if dry_run else "removed") if gone else "kept",
                reasons=() if gone else decision.reasons or ("unreadable snapshots",),
                disk_size=item.disk_size,
            )
        )


def decisions_of(contents: Contents, rules: Rules) -> list[Decision]:
    """Return the rules' decision on each snapshot now, by the days of the local time zone."""
    chains = Chains(contents.snapshots)
    candidates = [
        Candidate(
            item.name,
            item.time.astimezone(),
            item.snapshot_id,
            item.parent_id,
            whole=chains.problem(item) is None,
        )
        for item in contents.snapshots
    ]
    return decide(candidates, rules, datetime.now(UTC))


def prune_folder(
    folder: GuestFolder,
    contents: Contents,
    guest: GuestConfig,
    report: Report,
    *,
    dry_run: bool,
    tell: Callable[[int, int], None],
) -> list[str]:
    """
    Remove snapshots outside a guest's rules. Return their names. The lock must be held.

    If a file can't be identified, nothing is removed: its parent is unknown.

    :param tell: takes the bytes on disk that are removed, and those to be removed in all
    """
    gone = {item.candidate.name for item in decisions_of(contents, guest.rules) if not item.kept}
    if contents.unreadable and guest.rules:
        names = ", ".join(item.name for item in contents.unreadable)
        report.warn(f"nothing is removed: the parent of {names} can't be read", guest.name)
        return []
    chains = Chains(contents.snapshots)
    doomed = [item for item in contents.snapshots if item.name in gone]
    # The longest chains first, so that an interruption never leaves a snapshot without its parent.
    doomed.sort(key=lambda item: len(chains.chain(item)), reverse=True)
    if not dry_run:
        _remove(folder, doomed, tell)
        drop_roots(guest.roots, [item.name for item in doomed])
    return [item.name for item in doomed]


def _remove(
    folder: GuestFolder, doomed: Sequence[StoredSnapshot], tell: Callable[[int, int], None]
) -> None:
    done, size = 0, sum(item.disk_size for item in doomed)
    for item in doomed:
        tell(done, size)
        folder.remove(item)
        done += item.disk_size
        tell(done, size)


def future_snapshots(snapshots: Sequence[StoredSnapshot]) -> list[str]:
    """Return the names of snapshots from the future."""
    now = datetime.now(UTC)
    return [item.name for item in snapshots if item.time > now]
