"""A guest's snapshots on a line of time, as bars of their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from snapmig.backups.overview.guests import SnapshotState

__all__ = ("Bar", "Timeline", "timeline")

WIDTH, HEIGHT = 900, 90
"""Of the drawing, in its own units."""
_BAR = 7
_LEAST = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """A snapshot; the height is in proportion to its size, at least a few units."""

    x: float
    height: float
    snapshot: SnapshotState

    @property
    def looks(self) -> str:
        """Classes for the style sheet."""
        fate = " goes" if self.snapshot.goes else ""
        return f"{self.snapshot.kind}{fate}{' bad' if self.snapshot.problem else ''}"


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    Bars from the oldest snapshot to now, and the sum of sizes as the points of a line.

    :param total: points of the line, as SVG has them
    """

    bars: tuple[Bar, ...]
    total: str
    start: datetime
    end: datetime
    width: int = WIDTH
    height: int = HEIGHT
    bar: int = _BAR


def timeline(snapshots: Sequence[SnapshotState], now: datetime) -> Timeline | None:
    """Return the drawing of snapshots in the order of their times, None of none."""
    if not snapshots:
        return None
    start, end = snapshots[0].time, max(now, snapshots[-1].time)
    span = max(end - start, timedelta(seconds=1))
    largest = max(max(item.size for item in snapshots), 1)
    bars = [
        Bar(
            round((item.time - start) / span * (WIDTH - _BAR), 1),
            round(max(item.size / largest * HEIGHT, _LEAST), 1),
            item,
        )
        for item in snapshots
    ]
    return Timeline(tuple(bars), _total(bars), start, end)


def _total(bars: Sequence[Bar]) -> str:
    whole = max(sum(bar.snapshot.size for bar in bars), 1)
    points, so_far = [], 0
    for bar in bars:
        x = bar.x + _BAR / 2
        points.append(f"{x:.1f},{HEIGHT * (1 - so_far / whole):.1f}")
        so_far += bar.snapshot.size
        points.append(f"{x:.1f},{HEIGHT * (1 - so_far / whole):.1f}")
    return " ".join([*points, f"{WIDTH},0.0"])
