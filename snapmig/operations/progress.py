"""How far a run is: a value that a caller's function receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapmig.handlers.counters import Counter
from snapmig.workers.pool import Workers

__all__ = ("Progress", "ProgressCallback", "reporter")


@dataclass(frozen=True, slots=True)
class Progress:
    """
    A moment of a run.

    :param total_bytes: guest RAM that the run is about
    :param done_bytes: guest RAM that is finished: its packets are written, or checked
    :param stored_bytes: what the finished part takes in the snapshot; 0 while restoring
    """

    total_bytes: int
    done_bytes: int
    stored_bytes: int


ProgressCallback = Callable[[Progress], None]
"""Called in the caller's process and thread, several times a second and once at the end."""


def reporter(
    fleet: Workers, total_bytes: int, progress: ProgressCallback | None
) -> Callable[[], None]:
    """Return a function that reads the workers' counters and reports them."""

    def report() -> None:
        if progress is not None:
            row = fleet.cells.total()
            done, stored = int(row[Counter.RAM_BYTES]), int(row[Counter.STORED_BYTES])
            progress(Progress(total_bytes, done, stored))

    return report
