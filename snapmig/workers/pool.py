"""
Workers for one run, in the caller's own thread.

A worker that raises or dies ends the run at once with that cause. The others are killed, and
nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from snapmig.workers.counters import JobCounters
from snapmig.workers.dispatcher import Dispatcher
from snapmig.workers.job import Describe, Job
from snapmig.workers.processes import WorkerProcesses
from snapmig.workers.rate_limit import RateLimiter
from snapmig.workers.tasks import TASKS_AHEAD, Handler, TaskSource

__all__ = ("Wakers", "WorkerPool", "Workers", "WorkersMaker")


Wakers = Callable[[], Sequence[Any]]
"""Returns files, or objects with a descriptor, to wait for besides workers."""


class Workers(Protocol):
    """
    Worker processes for one job; a context manager.

    :ivar size: their number
    :ivar rate: limit on what they write, in bytes per second
    :ivar counters: their counters
    :ivar notes: remarks of workers for the user, each sentence once, in the order of arrival
    """

    size: int
    rate: int | None
    counters: JobCounters
    notes: dict[str, None]

    def __enter__(self) -> Workers: ...

    def __exit__(self, *_exc: object) -> None: ...

    def run(
        self,
        source: TaskSource,
        poll: Callable[[], None] = ...,
        *,
        limited: bool = ...,
        ahead: int = ...,
        wakers: Wakers = ...,
    ) -> None:
        """
        Execute all tasks of a source.

        :param poll: called often, for progress
        :param limited: apply the limit on bytes written per second
        :param ahead: tasks in a worker's pipe, unless a limit applies
        :param wakers: returns files; call ``poll`` at once if one of them is readable
        :raises WorkerDiedError: a worker ended without a message
        :raises Exception: the exception of a worker, as it raised it
        """


WorkersMaker = Callable[[int, Callable[[], Handler], Describe], Workers]
"""Gives workers for a job: how many, how each makes its handler, what may explain a death."""


class WorkerPool:
    """
    Worker processes for one run: :class:`Workers` of its own.

    :param jobs: number of workers
    :param make_handler: called in each worker; must be picklable
    :param describe: returns a likely explanation for a worker's death by a signal
    :param limiter: limit on what they write
    """

    def __init__(
        self,
        jobs: int,
        make_handler: Callable[[], Handler],
        describe: Describe = lambda _signal: "",
        limiter: RateLimiter | None = None,
    ) -> None:
        self.size = jobs
        self.rate = None if limiter is None else limiter.rate
        self._make_handler = make_handler
        self._processes = WorkerProcesses(jobs)
        self._job = Job(0, self._processes.counters, describe)
        self._dispatcher = Dispatcher(self._processes, limiter)
        self._dispatcher.jobs.append(self._job)
        self.counters = self._job.counters
        self.notes = self._job.notes

    def __enter__(self) -> WorkerPool:
        try:
            self._processes.start(self._make_handler)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._processes.end()

    def run(
        self,
        source: TaskSource,
        poll: Callable[[], None] = lambda: None,
        *,
        limited: bool = True,
        ahead: int = TASKS_AHEAD,
        wakers: Wakers = tuple,
    ) -> None:
        """Execute all tasks of a source; see :meth:`Workers.run`."""
        job, dispatcher = self._job, self._dispatcher
        job.begin(source, limited=limited, ahead=ahead)
        while True:
            pause = dispatcher.hand_out()
            if not job.running:
                break
            dispatcher.take(self._processes.wait(pause, wakers()))
            poll()
        job.raise_failure()
