"""Executors that run the jobs of a batch: local worker processes or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol

from snapmig.batches.jobs import PlannedJob
from snapmig.guests.wait import NoticeCallback
from snapmig.operations.options.save import SaveResult
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.restore import RestoreResult, restore
from snapmig.operations.runs.workers import WorkerGroup
from snapmig.operations.save import save

__all__ = ("Executor", "LocalExecutor")

_FUNCTIONS: Mapping[str, Callable[..., SaveResult | RestoreResult]] = {
    "save": save,
    "restore": restore,
}


class Executor(Protocol):
    """Runs jobs; a context manager."""

    def __enter__(self) -> Executor: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def room(self, job: PlannedJob, running: Iterable[PlannedJob]) -> bool:
        """Tell if a job can begin beside those under way."""

    def do(
        self, job: PlannedJob, note: ProgressCallback, notice: NoticeCallback
    ) -> tuple[SaveResult | RestoreResult, str | None]:
        """
        Run a job, in its own thread; a cancellation of the thread is raised in it.

        :param notice: called in that thread with messages for the user
        :returns: the result, and the name of the cluster's worker
        """


class LocalExecutor:
    """One group of worker processes on this host: a :class:`Executor`."""

    def __init__(self, workers: int, at_once: int, rate: int | None) -> None:
        self._group = WorkerGroup(workers, at_once, bwlimit=rate)

    def __enter__(self) -> LocalExecutor:
        self._group.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._group.__exit__(kind, error, trace)

    def room(self, job: PlannedJob, running: Iterable[PlannedJob]) -> bool:  # noqa: ARG002
        """Return True: all jobs share the workers."""
        return True

    def do(
        self, job: PlannedJob, note: ProgressCallback, notice: NoticeCallback
    ) -> tuple[SaveResult | RestoreResult, str | None]:
        """Run a job with the group."""
        result = _FUNCTIONS[job.verb](
            job.source,
            job.destination,
            jobs=self._group.size,
            workers=self._group,
            progress=note,
            notice=notice,
            **job.arguments,
        )
        return result, None
