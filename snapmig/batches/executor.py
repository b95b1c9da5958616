"""Executors that run the jobs of a batch: local worker processes or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from snapmig.batches.jobs import PlannedJob
from snapmig.guests.wait import NoticeCallback
from snapmig.operations.options.keys import with_keys
from snapmig.operations.options.save import SaveResult
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.restore import RestoreResult, restore
from snapmig.operations.runs.workers import WorkerGroup
from snapmig.operations.save import save

__all__ = ("Executor", "local_executor")

_FUNCTIONS: Mapping[str, Callable[..., SaveResult | RestoreResult]] = {
    "save": save,
    "restore": restore,
}


class Executor(Protocol):
    """Runs jobs."""

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


@contextmanager
def local_executor(workers: int, at_once: int, rate: int | None) -> Iterator[Executor]:
    """Give an executor with one group of worker processes on this host."""
    with WorkerGroup(workers, at_once, bwlimit=rate) as group:
        yield _LocalExecutor(group)


class _LocalExecutor:
    def __init__(self, group: WorkerGroup) -> None:
        self._group = group

    def room(self, job: PlannedJob, running: Iterable[PlannedJob]) -> bool:  # noqa: ARG002
        return True  # all jobs share the workers

    def do(
        self, job: PlannedJob, note: ProgressCallback, notice: NoticeCallback
    ) -> tuple[SaveResult | RestoreResult, str | None]:
        result = _FUNCTIONS[job.verb](
            job.source,
            job.destination,
            jobs=self._group.size,
            workers=self._group,
            progress=note,
            notice=notice,
            **with_keys(job.arguments),
        )
        return result, None
