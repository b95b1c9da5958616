"""Progress of a run, as passed to callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapmig.handlers.counters import Counter
from snapmig.workers.pool import Workers

__all__ = ("Progress", "ProgressCallback", "reporter")


@dataclass(frozen=True, slots=True)
class Progress:
    """
    The state of a run at one moment.

    :param total_bytes: guest RAM to process
    :param done_bytes: guest RAM of packets already written or checked
    :param stored_bytes: their size in the snapshot; 0 during a restore
    """

    total_bytes: int
    done_bytes: int
    stored_bytes: int


ProgressCallback = Callable[[Progress], None]
"""Called in the caller's process and thread, several times a second and once at the end."""


def reporter(
    pool: Workers, total_bytes: int, progress: ProgressCallback | None
) -> Callable[[], None]:
    """Return a function to read the workers' counters and report them."""

    def report() -> None:
        if progress is not None:
            row = pool.counters.total()
            done, stored = int(row[Counter.RAM_BYTES]), int(row[Counter.STORED_BYTES])
            progress(Progress(total_bytes, done, stored))

    return report
