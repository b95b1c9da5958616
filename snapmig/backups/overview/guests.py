"""The state of each guest, from the snapshots in its folder and the rules of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from snapmig.backups.check import is_due
from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.plan import Chains
from snapmig.backups.prune import decisions_of
from snapmig.backups.repository import guest_folder
from snapmig.backups.stored import Contents, StoredSnapshot
from snapmig.errors import SnapmigError
from snapmig.operations.failures import describe

__all__ = ("GuestState", "SnapshotState", "last_good", "state_of")

_GROWTH_DAYS = 30


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """
    A snapshot and its prospects.

    :param time: completion, in local time
    :param parent: name of its parent, None for a full one
    :param size: on disk, in bytes
    :param reasons: rules that keep it; empty if the next prune removes it
    :param problem: reason that it can't be restored, judged by superblocks and tables
    :param read_in_days: days until a daily check reads all of it, 0 for today; None: with each
    """

    name: str
    time: datetime
    kind: str
    parent: str | None
    size: int
    reasons: tuple[str, ...]
    problem: str | None
    read_in_days: int | None

    @property
    def goes(self) -> bool:
        """True if the next prune removes it."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class GuestState:
    """
    A guest, its snapshots in the order of their times, and all faults.

    :param state: ``good``, ``late``, ``damaged`` or ``none`` (no good snapshot), or
        ``unknown`` if its folder can't be read
    :param newest: place of the last good snapshot
    :param age: of that, None without one
    :param max_age: in the words of the configuration, None without a limit
    :param growth: mean of new bytes on disk a day, of the last 30 days; None for younger guests
    """

    guest: str
    source: str
    state: str
    newest: str | None
    age: timedelta | None
    max_age: str | None
    snapshots: tuple[SnapshotState, ...]
    problems: tuple[str, ...]
    growth: float | None

    @property
    def size(self) -> int:
        """Bytes on disk of all its snapshots."""
        return sum(item.size for item in self.snapshots)


def last_good(contents: Contents) -> StoredSnapshot | None:
    """Return the newest snapshot that can be restored, judged by superblocks and tables."""
    chains, now = Chains(contents.snapshots), datetime.now(UTC)
    past = (item for item in reversed(contents.snapshots) if item.time <= now)
    return next((item for item in past if chains.problem(item) is None), None)


def state_of(config: Config, guest: GuestConfig, now: datetime) -> GuestState:
    """
    Return the state of a guest. An unreadable folder is a state, too.

    :param now: aware, in local time
    """
    folder = guest_folder(config.repository, guest.name)
    try:
        folder.check_repository()
        contents = folder.read()
    except (SnapmigError, OSError) as error:
        problem = describe(error)[1]
        return _guest_state(guest, "unknown", None, now, problems=(problem,))
    snapshots = _snapshots(contents, guest, now)
    problems = [f"{item.name}: {item.problem}" for item in snapshots if item.problem is not None]
    problems += [f"{item.name}: {item.problem}" for item in contents.unreadable]
    if contents.unreadable and guest.rules:
        problems.append("nothing is removed as long as there are files that can't be read")
    problems += [f"{name} is not of a backup, and is left alone" for name in contents.foreign]
    good = last_good(contents)
    late = good is not None and guest.max_age is not None and good.time < guest.max_age.before(now)
    damaged = contents.unreadable or any(item.problem for item in snapshots)
    state = "none" if good is None else "late" if late else "damaged" if damaged else "good"
    return _guest_state(guest, state, good, now, tuple(snapshots), tuple(problems))


def _guest_state(
    guest: GuestConfig,
    state: str,
    good: StoredSnapshot | None,
    now: datetime,
    snapshots: tuple[SnapshotState, ...] = (),
    problems: tuple[str, ...] = (),
) -> GuestState:
    return GuestState(
        guest=guest.name,
        source=guest.source,
        state=state,
        newest=None if good is None else str(good.path),
        age=None if good is None else now - good.time,
        max_age=None if guest.max_age is None else str(guest.max_age),
        snapshots=snapshots,
        problems=problems,
        growth=_growth(snapshots, now),
    )


def _snapshots(contents: Contents, guest: GuestConfig, now: datetime) -> list[SnapshotState]:
    chains = Chains(contents.snapshots)
    kept = {item.candidate.name: item.reasons for item in decisions_of(contents, guest.rules)}
    stays = ("unreadable snapshots",) if contents.unreadable and guest.rules else ()
    return [
        SnapshotState(
            name=item.name,
            time=item.time.astimezone(),
            kind=item.kind,
            parent=None if (parent := chains.parent(item)) is None else parent.name,
            size=item.disk_size,
            reasons=kept[item.name] or stays,
            problem=chains.problem(item),
            read_in_days=_days_to_read(item, guest, now),
        )
        for item in contents.snapshots
    ]


def _days_to_read(item: StoredSnapshot, guest: GuestConfig, now: datetime) -> int | None:
    if guest.check_days is None:
        return None
    today = (now - datetime(1970, 1, 1, tzinfo=UTC)).days
    period = range(guest.check_days)
    return next(at for at in period if is_due(item.snapshot_id, guest.check_days, today + at))


def _growth(snapshots: Sequence[SnapshotState], now: datetime) -> float | None:
    if not snapshots or now - snapshots[0].time < timedelta(days=1):
        return None
    days = min(_GROWTH_DAYS, (now - snapshots[0].time).total_seconds() / 86400)
    since = now - timedelta(days=days)
    return sum(item.size for item in snapshots if item.time > since) / days
