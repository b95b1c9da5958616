"""Chains of a guest's snapshots: existing parents, and the kind of the next snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from snapmig.backups.durations import Duration
from snapmig.backups.stored import StoredSnapshot

__all__ = ("MAX_CHAIN", "Chains", "Plan", "plan_next")

MAX_CHAIN = 500
"""Snapshots that build on each other before a full one comes whatever the rule: a restore has all
of them open, in each worker."""


class Chains:
    """The snapshots of a guest, linked to their parents."""

    def __init__(self, snapshots: Sequence[StoredSnapshot]) -> None:
        self.snapshots = snapshots
        # Of several copies of a snapshot, a whole one counts.
        best_last = sorted(snapshots, key=lambda item: item.problem is None)
        self._by_id = {item.snapshot_id: item for item in best_last}

    def parent(self, snapshot: StoredSnapshot) -> StoredSnapshot | None:
        """Return the parent of a snapshot; None for a full one, and for a missing parent."""
        return None if snapshot.parent_id is None else self._by_id.get(snapshot.parent_id)

    def chain(self, snapshot: StoredSnapshot) -> list[StoredSnapshot]:
        """Return a snapshot and its ancestors as far as they exist, the full one last."""
        found = [snapshot]
        while (parent := self.parent(found[-1])) is not None and parent not in found:
            found.append(parent)
        return found

    def problem(self, snapshot: StoredSnapshot) -> str | None:
        """Return the reason a snapshot can't be restored, by superblocks and tables, or None."""
        for item in self.chain(snapshot):
            if (problem := self._own_problem(item)) is not None:
                return problem if item is snapshot else f"needs {item.name}: {problem}"
        return None

    def _own_problem(self, item: StoredSnapshot) -> str | None:
        if item.problem is not None:
            return item.problem
        if item.parent_id is None:
            return None
        parent = self.parent(item)
        if parent is None:
            return f"its parent, the snapshot with the id {item.parent_id.hex()}, is not here"
        if parent.root != item.parent_root:
            return f"its parent {parent.name} has changed since this was made"
        if item in self.chain(parent):
            return "it is among its own parents"
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """The next snapshot: full, or incremental on a parent, with the reason."""

    parent: StoredSnapshot | None
    reason: str

    @property
    def kind(self) -> str:
        """``full`` or ``incremental``."""
        return "full" if self.parent is None else "incremental"


def plan_next(
    snapshots: Sequence[StoredSnapshot], full_every: int | Duration, now: datetime
) -> Plan:
    """
    Return the kind of the next snapshot by the rule ``full_every``.

    The parent is the newest whole snapshot. Snapshots from the future don't count, because the
    clock was wrong then.

    :param full_every: one full snapshot in that many, or the greatest age of the full one
    """
    if full_every == 1:
        return Plan(None, "each is full")
    chains = Chains(snapshots)
    whole = (
        item for item in reversed(snapshots) if item.time <= now and chains.problem(item) is None
    )
    parent = next(whole, None)
    if parent is None:
        return Plan(None, "there is none to build on")
    chain = chains.chain(parent)
    if len(chain) >= (min(full_every, MAX_CHAIN) if isinstance(full_every, int) else MAX_CHAIN):
        return Plan(None, f"{len(chain)} snapshots since the last full one, that included")
    if isinstance(full_every, Duration) and _is_older(chain[-1].time, full_every, now):
        return Plan(None, f"the last full one is older than {full_every}")
    return Plan(parent, f"builds on {parent.name}")


def _is_older(time: datetime, age: Duration, now: datetime) -> bool:
    # Whole days count by the calendar: a snapshot of 02:16 a week ago is a week old when today's
    # run starts at 02:15.
    limit = age.before(now.astimezone())
    if age.hours:
        return time <= limit
    return time.astimezone().date() <= limit.date()
