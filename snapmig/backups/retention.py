"""
Retention: a function from times, parents and rules to decisions with reasons.

The rules are restic's (https://restic.readthedocs.io/en/stable/060_forget.html), similar to borg's:
``keep_last`` keeps the newest; ``keep_hourly`` to ``keep_yearly`` keep the newest of each of the
last hours, days, weeks, months or years with a snapshot, by local time; with fewer such periods
than the rule allows, the oldest snapshot is kept as well; ``keep_within`` keeps all younger than
this, counted from the newest. One rule is enough to keep a snapshot.

Beyond restic's: parents of kept snapshots are kept. Damaged snapshots count for no rule, so that
they push out no good ones, and are kept for people to look at. So are snapshots from the future,
evidence of a wrong clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from snapmig.backups.durations import Duration

__all__ = ("UNLIMITED", "Candidate", "Decision", "Rules", "decide")

UNLIMITED = -1
"""A count without an end, as in restic."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of retention: counts, 0 for none and :data:`UNLIMITED` for all, and a duration."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Duration | None = None

    def __bool__(self) -> bool:
        return any((self.last, *self.periods.values())) or bool(self.within)

    @property
    def periods(self) -> dict[str, int]:
        """The counts of periods by their names."""
        return {name: getattr(self, name) for name in _PERIODS}


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A snapshot in the eyes of retention.

    :param time: aware; its zone defines the days
    :param whole: it can be restored, as far as is known
    """

    name: str
    time: datetime
    id: bytes
    parent_id: bytes | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """The fate of a snapshot; a kept one has at least one reason."""

    candidate: Candidate
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """True if it stays."""
        return bool(self.reasons)


def decide(candidates: Iterable[Candidate], rules: Rules, now: datetime) -> list[Decision]:
    """
    Return a decision for each snapshot, the newest first.

    :param rules: empty rules keep everything
    :param now: later snapshots are from the future
    """
    newest_first = sorted(candidates, key=lambda item: (item.time, item.name), reverse=True)
    reasons: dict[str, list[str]] = {item.name: [] for item in newest_first}
    for item in newest_first:
        if item.time > now:
            reasons[item.name].append("from the future")
        if not item.whole:
            reasons[item.name].append("damaged")
        if not rules:
            reasons[item.name].append("no rules")
    _apply([item for item in newest_first if not reasons[item.name]], rules, reasons)
    _keep_parents(newest_first, reasons)
    return [Decision(item, tuple(reasons[item.name])) for item in newest_first]


def _apply(past: Sequence[Candidate], rules: Rules, reasons: dict[str, list[str]]) -> None:
    for item in past if rules.last == UNLIMITED else past[: rules.last]:
        reasons[item.name].append("last")
    for name, count in rules.periods.items():
        _keep_periods(past, name, count, reasons)
    if rules.within and past:
        start = rules.within.before(past[0].time)
        for item in past:
            if item.time > start:
                reasons[item.name].append(f"within {rules.within}")


def _keep_periods(
    past: Sequence[Candidate], name: str, count: int, reasons: dict[str, list[str]]
) -> None:
    period_of = _PERIODS[name]
    found: set[Hashable] = set()
    for item in past:
        if count in (0, len(found)):
            return
        period = period_of(item.time)
        if period not in found:
            found.add(period)
            reasons[item.name].append(name)
        elif item is past[-1]:
            reasons[item.name].append(f"oldest {name}")


def _keep_parents(candidates: Sequence[Candidate], reasons: dict[str, list[str]]) -> None:
    # Copies have the same id: then both stay.
    by_id: dict[bytes, list[Candidate]] = {}
    for item in candidates:
        by_id.setdefault(item.id, []).append(item)
    waiting = [item for item in candidates if reasons[item.name]]
    while waiting:
        child = waiting.pop()
        for parent in by_id.get(child.parent_id or b"", ()):
            if not reasons[parent.name]:
                waiting.append(parent)
            if parent is not child:
                reasons[parent.name].append(f"parent of {child.name}")


_PERIODS: dict[str, Callable[[datetime], Hashable]] = {
    # With the offset, because the repeated hour at the end of summer time is two hours.
    "hourly": lambda time: (time.date(), time.hour, time.utcoffset()),
    "daily": lambda time: time.date(),
    "weekly": lambda time: time.isocalendar()[:2],
    "monthly": lambda time: (time.year, time.month),
    "yearly": lambda time: time.year,
}
