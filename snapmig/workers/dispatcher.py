"""
Tasks of jobs to workers, and their replies back, for one job or many.

A worker runs its tasks in order. A dead one was therefore at the first of its tasks, if any, and
had not begun the others: the job of the first fails, the others are handed out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from snapmig.errors import SnapmigError, WorkerDiedError
from snapmig.workers.job import Job
from snapmig.workers.processes import Worker, WorkerProcesses
from snapmig.workers.rate_limit import RateLimiter
from snapmig.workers.tasks import unpack_reply

__all__ = ("POLL_S", "Dispatcher")

POLL_S = 0.1
"""Seconds between two looks at the counters while nothing else happens."""


class Dispatcher:
    """
    Hand out the tasks of jobs in turn.

    :param limiter: limit on what all of them write
    :param lasting: replace dead workers, and fail only the job that a dead one worked for;
        otherwise all jobs fail
    """

    def __init__(
        self,
        processes: WorkerProcesses,
        limiter: RateLimiter | None = None,
        *,
        lasting: bool = False,
    ) -> None:
        self.processes = processes
        self.jobs: list[Job] = []
        self._limiter = limiter
        self._lasting = lasting
        self._turn = 0
        # Bounds the replacement of workers that die without a task, one after the other.
        self._spares = processes.size

    def hand_out(self) -> float:
        """Give workers tasks. Return the seconds until there may be more to give."""
        if not self.processes.workers:
            for job in self.jobs:
                job.end(WorkerDiedError("no worker is left, all of them died"))
        pause = 0.0 if self._limiter is None else self._limiter.wait_s()
        for ahead in range(1, self._ahead + 1):
            for worker in list(self.processes.workers.values()):
                if worker.ready and len(worker.tasks) < ahead:
                    self._give(worker, limited=pause > 0)
        return min(POLL_S, pause) if pause else POLL_S

    @property
    def _ahead(self) -> int:
        # As many as the most demanding job asks for: with a number per job, that one would take the
        # pipes for itself.
        if self._limiter is not None:
            return 1
        return max((job.ahead for job in self.jobs if job.running), default=0)

    def take(self, heard: Mapping[Worker, bool]) -> None:
        """Take the replies and deaths of workers, as :meth:`WorkerProcesses.wait` returns them."""
        for worker, sent in heard.items():
            if sent:
                alive = self._receive(worker)
            else:
                # Its last messages may have come after the wait looked there.
                while worker.pipe.poll() and self._receive(worker):
                    pass
                alive = False
            if not alive:
                self._bury(worker)

    def _give(self, worker: Worker, *, limited: bool) -> None:
        # From the next job in turn. A limited job waits until there is something to spend.
        for _ in range(len(self.jobs)):
            self._turn = (self._turn + 1) % len(self.jobs)
            job = self.jobs[self._turn]
            if job.source is None or (limited and job.limited):
                continue
            try:
                task = job.source.next_for(worker.number)
            except Exception as error:  # noqa: BLE001 - the job's own, whatever it is
                job.end(error)
                continue
            if task is not None:
                worker.send(job, task)
                return
            if not job.waiting and not job.source.waiting:
                job.end()

    def _receive(self, worker: Worker) -> bool:
        # Take one message; False for the end of the pipe.
        try:
            raw = worker.pipe.recv_bytes()
        except (EOFError, ConnectionResetError):
            return False
        if not worker.ready:
            worker.ready = True
            return True
        job, task = worker.tasks.popleft()
        job.waiting -= 1
        if self._limiter is not None:
            self._limiter.spend(job.newly_written(worker.number, self._limiter.counter))
        try:
            reply, notes = unpack_reply(raw)
            job.notes.update(dict.fromkeys(notes))
            if job.source is not None:
                for number, more in job.source.finished(worker.number, task, reply):
                    self.processes.workers[number].send(job, more)
        except BaseException as error:  # noqa: BLE001 - what the worker, or the job's own, raised
            job.end(error)
        return True

    def _bury(self, worker: Worker) -> None:
        cause, number = worker.death()
        left = list(worker.tasks)
        begun = left.pop(0) if left and self.processes.was_busy(worker) else None
        for job, _ in worker.tasks:
            job.waiting -= 1
        worker.tasks.clear()
        self._replace(worker, spare=begun is None)
        if begun is not None:
            job, task = begun
            found = f"{cause}{_explanation(job, number)} while it had {task.shown}"
            job.end(WorkerDiedError(f"worker {worker.number} {found}"))
        for job in self.jobs:
            job.retire(worker.number)
            if job.source is None:
                continue
            if not self._lasting:
                found = f"{cause}{_explanation(job, number)}"
                job.end(WorkerDiedError(f"worker {worker.number} {found}"))
                continue
            try:
                job.source.lost(worker.number, [task for owner, task in left if owner is job])
            except Exception as error:  # noqa: BLE001 - the job's own, whatever it is
                job.end(error)

    def _replace(self, worker: Worker, *, spare: bool) -> None:
        if not self._lasting or (spare and not self._spares):
            self.processes.remove(worker)
            return
        self._spares -= spare
        with suppress(SnapmigError):  # no process can be made now: the others go on
            self.processes.replace(worker)


def _explanation(job: Job, number: int) -> str:
    # The job's explanation for a death by signal; an abandoned job has closed its files.
    if job.source is None or not number:
        return ""
    try:
        return job.describe(number)
    except OSError:
        return ""
