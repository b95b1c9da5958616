"""How a snapshot is read: by how many workers, by which engine, and who hears of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.fleet.fleet import Fleet
from snapmig.operations.engines import choose_to_read, failure_warnings
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.settings import parse_depth, parse_jobs
from snapmig.work.counters import Counter
from snapmig.work.load import ReadPlan

__all__ = ("ReadOptions", "Reading", "read_options")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Checked values of the words that restore and verify share."""

    jobs: int
    accelerator: str
    depth: int | None
    progress: ProgressCallback | None


def read_options(
    jobs: int | None, accelerator: str, depth: int | None, progress: ProgressCallback | None
) -> ReadOptions:
    """
    Check them.

    :raises UsageError: one makes no sense
    """
    return ReadOptions(parse_jobs(jobs), accelerator, parse_depth(depth), progress)


@dataclass(slots=True)
class Reading:
    """
    One snapshot that is being read.

    :ivar warnings: what the user should know, a sentence each
    :raises SnapmigError: the engine can't be used on this host
    """

    snapshot: SnapshotFile
    options: ReadOptions
    settings: ReadSettings = field(init=False)
    warnings: list[str] = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        self.settings, self.warnings = choose_to_read(
            self.snapshot, options.accelerator, options.depth
        )

    @property
    def plan(self) -> ReadPlan:
        """What a worker needs to read it too."""
        return ReadPlan(self.snapshot.path_for_workers, self.snapshot.shown, self.settings)

    def take_warnings(self, fleet: Fleet) -> None:
        """Keep what workers found worth telling."""
        failures = int(fleet.cells.total()[Counter.ENGINE_FAILURES])
        self.warnings += failure_warnings(list(fleet.notes), failures)
