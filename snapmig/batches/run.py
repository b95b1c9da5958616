"""``batch``: many guests saved or restored in one run, on this host or on a cluster."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from snapmig.batches.checks import SchedulerMissingError
from snapmig.batches.cluster_executor import cluster_executor, cluster_warnings, hosts_of
from snapmig.batches.executor import Executor, local_executor
from snapmig.batches.file import read_batch_file
from snapmig.batches.jobs import PlannedJob, plan_jobs
from snapmig.batches.results import BatchJob, BatchProgress, BatchResult
from snapmig.batches.space import check_batch_space
from snapmig.cluster.scheduler import Scheduler
from snapmig.errors import CancelledError, DestinationExistsError, UsageError
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.failures import describe
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.parse import parse_jobs, parse_rate
from snapmig.operations.options.save import SaveResult
from snapmig.operations.progress import Progress
from snapmig.operations.restore import RestoreResult, with_losses
from snapmig.system.limits import start_thread
from snapmig.system.signals import Cancellation, HeldSignals, raise_if_cancelled
from snapmig.units import format_count

__all__ = ("Batch", "SchedulerMissingError", "batch")

_POLL_S = 0.1

_INTERRUPTED = "cancelled, the run was interrupted"
_LET_GO_S = 60.0
"""Seconds that jobs have for their ends when a run is interrupted: guests are let go there."""

_GUESTS_AT_ONCE = 2
"""Where nothing else is said; on a cluster it is as many as there are hosts."""


@checks_arguments
def batch(
    path: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    max_guests_at_once: int | None = None,
    fail_fast: bool | None = None,
    bwlimit: str | int | None = None,
    monitor_timeout: float | str | None = None,
    scheduler: Scheduler | None = None,
    ended: Callable[[BatchJob], None] | None = None,
    progress: Callable[[BatchProgress], None] | None = None,
    notice: Callable[[str, str], None] | None = None,
) -> BatchResult:
    """
    Save and restore the guests listed in a file; docs/batch.md is its reference.

    A failed job becomes a :class:`BatchJob` of the result and stops no other. If an exception
    interrupts the run (a signal's, or one of a callback), paused guests continue and partial files
    are removed first.

    Arguments override the file.

    :param path: the file; paths in it are relative to its directory
    :param jobs: worker processes, for all guests together
    :param max_guests_at_once: jobs under way at a time
    :param fail_fast: cancel the other jobs after a failure
    :param bwlimit: bytes per second to write at most, all together; a number or a text such as
        ``200M``
    :param monitor_timeout: seconds to wait for each answer of a guest's monitor
    :param scheduler: the scheduler of a Dask cluster; each job runs on its host: docs/cluster.md
    :param ended: called with each job at its end, in the caller's thread
    :param progress: called several times a second, in the caller's thread
    :param notice: called with a job's name and a message for the user, in the caller's thread; not
        for jobs on other hosts
    :raises UsageError: an invalid file, or conflicting jobs
    :raises NoSpaceError: the images to restore can't fit
    :raises OSError: the file can't be read
    """
    run = Batch(
        path,
        jobs=jobs,
        max_guests_at_once=max_guests_at_once,
        fail_fast=fail_fast,
        bwlimit=bwlimit,
        monitor_timeout=monitor_timeout,
        scheduler=scheduler,
    )
    return run.run(ended, progress, notice)


class Batch:
    """
    A checked file, ready to run.

    :ivar warnings: warnings known before the start, a sentence each
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        jobs: int | None = None,
        max_guests_at_once: int | None = None,
        fail_fast: bool | None = None,
        bwlimit: str | int | None = None,
        monitor_timeout: float | str | None = None,
        scheduler: Scheduler | None = None,
    ) -> None:
        file = read_batch_file(Path(path))
        if monitor_timeout is not None:
            file.monitor_timeout = parse_monitor_timeout(monitor_timeout)
        self.jobs = plan_jobs(file, Path(path), on_cluster=scheduler is not None)
        self._workers = file.jobs if jobs is None else jobs
        self.workers = parse_jobs(self._workers)
        at_once = file.max_guests_at_once if max_guests_at_once is None else max_guests_at_once
        if at_once is None:
            at_once = _GUESTS_AT_ONCE if scheduler is None else len(hosts_of(self.jobs))
        if at_once < 1:
            raise UsageError(f"max_guests_at_once is {at_once}, expected at least 1")
        self.at_once = min(at_once, len(self.jobs))
        self.fail_fast = file.fail_fast if fail_fast is None else fail_fast
        limit = file.bwlimit if bwlimit is None else bwlimit
        self._rate = None if limit is None else parse_rate(limit)
        self._scheduler = scheduler
        if scheduler is None:
            self.warnings = list(check_batch_space(self.jobs))
        else:  # each job looks at its own host's space
            self.warnings = list(cluster_warnings(scheduler))

    def run(
        self,
        ended: Callable[[BatchJob], None] | None = None,
        progress: Callable[[BatchProgress], None] | None = None,
        notice: Callable[[str, str], None] | None = None,
    ) -> BatchResult:
        """Run all jobs."""
        started = time.monotonic()
        # Workers come first: they must be forked while this is the only thread.
        with self._executor() as executor:
            run = _Run(self, executor, ended, progress, notice)
            try:
                run.go()
            except BaseException as error:
                run.stop(error)
                raise
        results = tuple(run.results[job.name] for job in self.jobs)
        failed = [job.exit_code for job in results if job.state == "failed"]
        return BatchResult(
            jobs=results,
            exit_code=failed[0] if failed else 0,
            seconds=round(time.monotonic() - started, 3),
            warnings=tuple(self.warnings),
        )

    def _executor(self) -> AbstractContextManager[Executor]:
        if self._scheduler is None:
            return local_executor(self.workers, self.at_once, self._rate)
        # Jobs under way share the limit equally, because they know nothing of each other.
        rate = None if self._rate is None else max(1, self._rate // self.at_once)
        return cluster_executor(self._scheduler, self.jobs, self._workers, rate)


class _Running:
    # A job in its thread.
    def __init__(self, job: PlannedJob, work: Callable[[_Running], None]) -> None:
        self.job = job
        self.started = time.monotonic()
        self.cancellation = Cancellation()
        self.progress: Progress | None = None
        self.ram: Progress | None = None
        self.thread = threading.Thread(
            target=work, args=(self,), name=f"snapmig-{job.name}", daemon=True
        )

    def note(self, progress: Progress) -> None:
        self.progress = progress
        if self.ram is not None or not progress.phase:  # a phase before has other numbers
            self.ram = progress


class _Run:
    # Jobs in their threads; callbacks are called in the caller's thread.
    def __init__(
        self,
        batch: Batch,
        executor: Executor,
        ended: Callable[[BatchJob], None] | None,
        progress: Callable[[BatchProgress], None] | None,
        notice: Callable[[str, str], None] | None,
    ) -> None:
        self._batch = batch
        self._executor = executor
        self._ended = ended
        self._progress = progress
        self._notice = notice
        self._waiting = deque(batch.jobs)
        self._running: dict[str, _Running] = {}
        self._events: SimpleQueue[tuple[_Running, BatchJob | str]] = SimpleQueue()
        self._sizes = {job.name: job.expected_bytes for job in batch.jobs}
        self.results: dict[str, BatchJob] = {}

    def go(self) -> None:
        while self._waiting or self._running:
            while (job := self._next()) is not None:
                self._start(job)
            try:
                running, result = self._events.get(timeout=_POLL_S)
            except Empty:
                pass
            else:
                if isinstance(result, BatchJob):
                    self._take(running, result)
                elif self._notice is not None:
                    self._notice(running.job.name, result)
            self._report()

    def stop(self, error: BaseException) -> None:
        # Called with the exception that ended the run; a second signal must not disturb it.
        with HeldSignals():
            for running in self._running.values():
                running.cancellation.cancel(CancelledError(_INTERRUPTED))
            end = time.monotonic() + _LET_GO_S
            for running in self._running.values():
                if running.thread.ident is not None:
                    running.thread.join(max(0.0, end - time.monotonic()))
                if running.thread.is_alive():
                    error.add_note(
                        f"{running.job.name} did not end in {_LET_GO_S:.0f} s: check for a "
                        "paused guest and for partial files"
                    )
            self._tell_left(error)

    def _tell_left(self, error: BaseException) -> None:
        # What is left of jobs: of the ended ones their results, of others what they say.
        done = sum(each.state == "done" for each in self.results.values())
        left = []
        with suppress(Empty):
            while True:
                _, result = self._events.get_nowait()
                if isinstance(result, BatchJob):
                    done += result.state == "done"
                    _, _, more = (result.message or "").partition(f"{_INTERRUPTED}; ")
                    left += [f"{result.name}: {more}"] if more else []
        jobs = format_count(len(self._batch.jobs), "job")
        error.add_note(f"{done} of {jobs} done{'' if left else ', nothing is left of the others'}")
        for words in left:
            error.add_note(words)

    def _next(self) -> PlannedJob | None:
        # The first waiting job with room.
        if len(self._running) >= self._batch.at_once:
            return None
        running = [each.job for each in self._running.values()]
        for job in self._waiting:
            if self._executor.room(job, running):
                self._waiting.remove(job)
                return job
        return None

    def _start(self, job: PlannedJob) -> None:
        running = _Running(job, self._work)
        self._running[job.name] = running
        start_thread(running.thread)

    def _work(self, running: _Running) -> None:
        # In the job's thread.
        job = running.job
        result: SaveResult | RestoreResult | None = None
        worker: str | None = None
        state, code, message = "done", 0, None
        try:
            with running.cancellation.here():
                raise_if_cancelled()
                result, worker = self._executor.do(
                    job, running.note, lambda text: self._events.put((running, text))
                )
            if isinstance(result, RestoreResult) and result.exit_code:
                state, code, message = "failed", result.exit_code, with_losses(result)
        except BaseException as error:  # noqa: BLE001 - one job's failure is a result of the run
            state = "cancelled" if isinstance(error, CancelledError) else "failed"
            code, message = describe(error)
            if isinstance(error, DestinationExistsError):
                message += ", force = true overwrites it"
        seconds = round(time.monotonic() - running.started, 3)
        outcome = BatchJob(
            job.name, job.verb, state, result, code, message, seconds, job.host, worker
        )
        self._events.put((running, outcome))

    def _take(self, running: _Running, result: BatchJob) -> None:
        running.thread.join()
        del self._running[result.name]
        size = 0 if running.ram is None else running.ram.total_bytes
        self._sizes[result.name] = size or self._sizes[result.name]
        self._end(result)
        if result.state == "failed" and self._batch.fail_fast:
            self._give_up(result.name)

    def _give_up(self, name: str) -> None:
        for running in self._running.values():
            running.cancellation.cancel(CancelledError(f"cancelled because {name} failed"))
        while self._waiting:
            job = self._waiting.popleft()
            message = f"not begun because {name} failed"
            self._end(BatchJob(job.name, job.verb, "skipped", None, 1, message, 0.0, job.host))

    def _end(self, result: BatchJob) -> None:
        self.results[result.name] = result
        if self._ended is not None:
            self._ended(result)

    def _report(self) -> None:
        if self._progress is None:
            return
        done = sum(self._sizes[name] for name in self.results)
        total = sum(self._sizes[job.name] for job in self._waiting) + done
        under_way = {name: running.progress for name, running in self._running.items()}
        for name, running in self._running.items():
            ram = running.ram
            done += 0 if ram is None else ram.done_bytes
            total += self._sizes[name] if ram is None else ram.total_bytes
        jobs, ended = len(self._batch.jobs), len(self.results)
        self._progress(BatchProgress(total, done, jobs, ended, under_way))
