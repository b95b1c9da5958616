"""Results and progress of a batch."""

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
    The outcome of a job.

    :param verb: ``save`` or ``restore``
    :param state: ``done``; ``failed``; ``cancelled`` after the failure of another job or a signal;
        ``skipped``, not begun
    :param result: the verb's result; None unless done, or restored with losses
    :param exit_code: 0, or the failure's
    :param message: cause of the failure
    :param host: on a cluster, the job's host; ``worker`` is the name of the worker there
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
    The outcome of all jobs, in the order of the file.

    :param exit_code: 0, or the code of the file's first failed job
    :param warnings: warnings about the run as a whole, a sentence each
    """

    jobs: tuple[BatchJob, ...]
    exit_code: int
    seconds: float
    warnings: tuple[str, ...]

    def count(self, state: str) -> int:
        """Return the number of jobs in a state."""
        return Counter(job.state for job in self.jobs)[state]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """
    The state of a run at one moment.

    :param total_bytes: guest RAM of all jobs, as far as known
    :param done_bytes: guest RAM finished
    :param jobs: number of jobs, ``ended_jobs`` of them over
    :param running: progress of the jobs under way, by name; None before the first packet
    """

    total_bytes: int
    done_bytes: int
    jobs: int
    ended_jobs: int
    running: Mapping[str, Progress | None]
