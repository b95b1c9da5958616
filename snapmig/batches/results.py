"""What a batch tells its caller: how each job ended, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from snapmig.operations.options.save import SaveResult
from snapmig.operations.progress import Progress
from snapmig.operations.restore import RestoreResult

__all__ = ("BatchJob", "BatchProgress", "BatchResult")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """
    How a job ended.

    :param verb: ``save`` or ``restore``
    :param state: ``done``; ``failed``; ``cancelled`` because another failed or a signal came;
        ``skipped``, not begun
    :param result: what was done
    :param exit_code: 0, or that of the failure
    :param message: why it is not done
    :param host: on a cluster the host that it was for, and ``worker`` the name of who did it
    """

    name: str
    verb: str
    state: str
    result: SaveResult | RestoreResult | None
    exit_code: int
    message: str | None
    seconds: float
    host: str | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """
    How all jobs ended, in the order of the file.

    :param exit_code: 0, or that of the first job in the file that failed
    :param warnings: what the user should know of the run as a whole, a sentence each
    """

    jobs: tuple[BatchJob, ...]
    exit_code: int
    seconds: float
    warnings: tuple[str, ...]

    def count(self, state: str) -> int:
        """Return how many jobs ended in a state."""
        return Counter(job.state for job in self.jobs)[state]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """
    A moment of a run.

    :param total_bytes: guest RAM of all jobs, as far as it is known yet
    :param done_bytes: what of it is finished
    :param jobs: how many there are, ``ended_jobs`` of which have ended
    :param running: the progress of those under way, by name; None before the first packet
    """

    total_bytes: int
    done_bytes: int
    jobs: int
    ended_jobs: int
    running: Mapping[str, Progress | None]
