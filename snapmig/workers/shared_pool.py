"""
Workers shared by many jobs, each job in a thread of its own.

The workers are started before any thread, and one thread serves all of their pipes. When a worker
dies, its current job fails and another process takes its place; the other jobs go on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from multiprocess.connection import wait

from snapmig.errors import SnapmigError
from snapmig.system.limits import start_thread
from snapmig.system.signals import raise_if_cancelled
from snapmig.workers.counters import JobCounters
from snapmig.workers.dispatcher import POLL_S, Dispatcher
from snapmig.workers.job import Describe, Job
from snapmig.workers.pool import Wakers
from snapmig.workers.processes import WorkerProcesses
from snapmig.workers.rate_limit import RateLimiter
from snapmig.workers.tasks import TASKS_AHEAD, Handler, TaskSource

__all__ = ("SharedPool", "SharedWorkers")

_SPARE_SLOTS = 4
"""Slots beyond those in use, for jobs whose workers hang where nothing ends them."""

_LAST_TASKS_S = 5.0
"""Seconds that the workers of a job that is given up have for the tasks that they are at."""

_SLOT_S = 60.0

_WAKER_S = 0.02
"""Seconds between two looks at a job's end while its thread waits for something else, too."""


class SharedPool:
    """
    Worker processes for many jobs; a context manager.

    :param size: number of workers
    :param at_once: jobs at a time
    :param limiter: limit on what all of them write together
    """

    def __init__(self, size: int, at_once: int, limiter: RateLimiter | None = None) -> None:
        self.size = size
        slots = at_once + _SPARE_SLOTS
        self._processes = WorkerProcesses(size, slots)
        self._dispatcher = Dispatcher(self._processes, limiter, lasting=True)
        self.rate = None if limiter is None else limiter.rate
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._stopped = False
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._serve, name="snapmig-pool", daemon=True)

    def __enter__(self) -> SharedPool:
        try:
            self._processes.start()
            start_thread(self._thread)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._changed:
            self._stopped = True
            self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._processes.end()
        os.close(self._waker)

    def workers(
        self, _jobs: int, make_handler: Callable[[], Handler], describe: Describe
    ) -> SharedWorkers:
        """Return the workers for one job. Their number is fixed by the pool."""
        return SharedWorkers(self, make_handler, describe)

    def open(self, make_handler: Callable[[], Handler], describe: Describe) -> Job:
        """
        Give a job a slot.

        :raises SnapmigError: abandoned jobs hold all slots
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._free, _SLOT_S):
                raise SnapmigError("workers hang in jobs that were given up")
            job = Job(self._free.pop(), self._processes.counters, describe)
            job.store(make_handler)
            self._dispatcher.jobs.append(job)
        return job

    def begin(self, job: Job, source: TaskSource, *, limited: bool, ahead: int) -> None:
        """Start a run of a job."""
        with self._changed:
            if self._stopped:
                raise SnapmigError("the workers are gone")
            job.begin(source, limited=limited, ahead=ahead)
            self._wake()

    def close(self, job: Job) -> None:
        """
        Release a job once no worker has a task of it.

        Workers still busy with it after some seconds are killed and replaced.
        """
        with self._changed:
            job.end()
            if not self._quiet(job):
                self._kill_those_at(job)
                if not self._quiet(job):
                    return  # not even SIGKILL ended the process: its slot stays taken
            self._dispatcher.jobs.remove(job)
            if not self._stopped:
                for worker in self._processes.workers.values():
                    worker.close(job.slot)
                self._free.append(job.slot)
                self._changed.notify_all()
            job.close()

    def _quiet(self, job: Job) -> bool:
        end = time.monotonic() + _LAST_TASKS_S
        while job.waiting and not self._stopped:
            left = end - time.monotonic()
            at_it = any(w.tasks and w.tasks[0][0] is job for w in self._processes.workers.values())
            if left <= 0 and at_it:
                return False
            # Tasks of other jobs in front of its own don't count, however long they take.
            self._changed.wait(max(left, POLL_S))
        return True

    def _kill_those_at(self, job: Job) -> None:
        for worker in self._processes.workers.values():
            if worker.tasks and worker.tasks[0][0] is job:
                worker.process.kill()

    def _wake(self) -> None:
        os.eventfd_write(self._waker, 1)

    def _serve(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._stopped:
                        return
                    pause = self._dispatcher.hand_out()
                heard = self._processes.wait(pause, [self._waker])
                with self._changed:
                    with suppress(BlockingIOError):
                        os.eventfd_read(self._waker)
                    self._dispatcher.take(heard)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - a bug: nobody may wait for a dead thread
            with self._changed:
                self._stopped = True
                for job in self._dispatcher.jobs:
                    job.end(error)
                self._changed.notify_all()


class SharedWorkers:
    """The workers of a shared pool for one job, in that job's thread; see :class:`Workers`."""

    counters: JobCounters
    notes: dict[str, None]

    def __init__(
        self, pool: SharedPool, make_handler: Callable[[], Handler], describe: Describe
    ) -> None:
        self._pool = pool
        self.size, self.rate = pool.size, pool.rate
        self._make_handler = make_handler
        self._describe = describe

    def __enter__(self) -> SharedWorkers:
        self._job = self._pool.open(self._make_handler, self._describe)
        self.counters, self.notes = self._job.counters, self._job.notes
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.close(self._job)

    def run(
        self,
        source: TaskSource,
        poll: Callable[[], None] = lambda: None,
        *,
        limited: bool = True,
        ahead: int = TASKS_AHEAD,
        wakers: Wakers = tuple,
    ) -> None:
        """Execute all tasks of a source. A cancellation of this thread can arrive meanwhile."""
        job = self._job
        self._pool.begin(job, source, limited=limited, ahead=ahead)
        while not _wait_for_end(job, wakers()):
            raise_if_cancelled()
            poll()
        job.raise_failure()


def _wait_for_end(job: Job, wakers: Sequence[Any]) -> bool:
    if not wakers:
        return job.ended.wait(POLL_S)
    wait(wakers, _WAKER_S)
    return job.ended.is_set()
