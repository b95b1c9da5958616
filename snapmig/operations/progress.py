"""Progress of a run, as passed to callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapmig.handlers.counters import Counter
from snapmig.workers.pool import Workers

__all__ = ("AT_PEER", "TO_DISK", "Progress", "ProgressCallback", "phase_reporter", "reporter")


@dataclass(frozen=True, slots=True)
class Progress:
    """
    The state of a run at one moment.

    :param total_bytes: guest RAM to process; of a removal, bytes on disk
    :param done_bytes: guest RAM of packets already written or checked
    :param stored_bytes: their size in the snapshot; 0 during a restore
    :param phase: words for what is done before or after the packets, with numbers of its own if it
        comes before them, such as bytes of a file, and none if its length is unknown
    """

    total_bytes: int
    done_bytes: int
    stored_bytes: int
    phase: str = ""


ProgressCallback = Callable[[Progress], None]
"""Called in the caller's process and thread, several times a second and as each phase begins."""

AT_PEER = "waiting for the other end"
"""The phase in which a destination loads what it has."""
TO_DISK = "waiting for the disk"
"""The phase of a sync."""


def reporter(
    pool: Workers,
    total_bytes: int,
    progress: ProgressCallback | None,
    *,
    before: int = 0,
    phase: str = "",
) -> Callable[[], None]:
    """
    Return a function to read the workers' counters and report them.

    :param before: bytes of the total that were done before
    """

    def report() -> None:
        if progress is not None:
            row = pool.counters.total()
            done, stored = int(row[Counter.RAM_BYTES]), int(row[Counter.STORED_BYTES])
            progress(Progress(total_bytes, before + done, stored, phase))

    return report


def phase_reporter(progress: ProgressCallback | None, phase: str) -> Callable[[int, int], None]:
    """Return a function to report bytes done, and their total, of a phase before the packets."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(Progress(total, done, 0, phase))

    return report
