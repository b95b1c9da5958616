"""By what a batch's jobs are done: the workers of this machine, or something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol

from snapmig.batches.jobs import PlannedJob
from snapmig.guests.wait import NoticeCallback
from snapmig.operations.options.save import SaveResult
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.restore import RestoreResult, restore
from snapmig.operations.save import save
from snapmig.workers.rate_limit import RateLimiter
from snapmig.workers.shared_pool import SharedPool

__all__ = ("LocalMeans", "Means")

_FUNCTIONS: Mapping[str, Callable[..., SaveResult | RestoreResult]] = {
    "save": save,
    "restore": restore,
}


class Means(Protocol):
    """Does jobs; a context manager."""

    def __enter__(self) -> Means: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def room(self, job: PlannedJob, running: Iterable[PlannedJob]) -> bool:
        """Say whether a job can begin beside those that run."""

    def do(
        self, job: PlannedJob, note: ProgressCallback, notice: NoticeCallback
    ) -> tuple[SaveResult | RestoreResult, str | None]:
        """
        Do a job, in its thread; a cancellation of the thread arrives meanwhile.

        :param notice: called, in that thread, with what the user should read meanwhile
        :returns: what was done, and which worker of a cluster did it
        """


class LocalMeans:
    """One fleet of worker processes here: :class:`Means`."""

    def __init__(self, workers: int, at_once: int, pace: RateLimiter | None) -> None:
        self._fleet = SharedPool(workers, at_once, pace)

    def __enter__(self) -> LocalMeans:
        self._fleet.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._fleet.__exit__(kind, error, trace)

    def room(self, job: PlannedJob, running: Iterable[PlannedJob]) -> bool:  # noqa: ARG002
        """All jobs have the same workers."""
        return True

    def do(
        self, job: PlannedJob, note: ProgressCallback, notice: NoticeCallback
    ) -> tuple[SaveResult | RestoreResult, str | None]:
        """Do a job by the fleet."""
        result = _FUNCTIONS[job.verb](
            job.source,
            job.destination,
            jobs=self._fleet.size,
            workers=self._fleet.workers,
            progress=note,
            notice=notice,
            **job.words,
        )
        return result, None
