"""Facts about workers that many jobs share: whatever becomes of one job, the others are done."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import multiprocess
import pytest

from snapmig.errors import CancelledError, CorruptSnapshotError, WorkerDiedError
from snapmig.system.signals import Cancellation
from snapmig.workers import shared_pool as shared
from snapmig.workers.shared_pool import SharedPool
from snapmig.workers.tasks import Task
from tests.support import handlers, processes, program
from tests.support.handlers import numbered

ROOT = Path(__file__).parents[2]


def _job(pool, make_handler, tasks, describe=lambda _signal: ""):
    # In the calling thread; gives the replies, or raises what failed.
    source = numbered(tasks)
    with pool.workers(0, make_handler, describe) as workers:
        workers.run(source)
        return source.replies, workers.counters.total()


def _jobs(pool, *wanted):
    # Side by side; gives what each returned or raised.
    def run(job):
        try:
            return _job(pool, *job)
        except Exception as error:  # noqa: BLE001 - the outcome, whatever it is
            return error

    with ThreadPoolExecutor(len(wanted)) as threads:
        return list(threads.map(run, wanted))


def _numbers(outcome):
    replies, _ = outcome
    return sorted(first for _, first in replies)


def _pids():
    return {child.pid for child in multiprocess.active_children()}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_of_every_job_is_done_once(workers, jobs):
    """However many workers and jobs there are, each task has one reply, and its job has it."""
    with SharedPool(workers, jobs) as pool:
        outcomes = _jobs(pool, *[(handlers.Echo, 20 * number) for number in range(jobs)])

    assert [_numbers(each) for each in outcomes] == [list(range(20 * n)) for n in range(jobs)]


def test_each_job_has_counters_of_its_own():
    """A worker's count for one job is not in another's sum."""
    with SharedPool(2, 3) as pool:
        outcomes = _jobs(pool, *[(handlers.Echo, count) for count in (5, 50, 500)])

    assert [total[0] for _, total in outcomes] == [5, 50, 500]


def test_a_slot_starts_at_zero_again():
    """More jobs than slots, one after the other, all count from zero."""
    with SharedPool(2, 1) as pool:
        totals = [_job(pool, handlers.Echo, 7)[1][0] for _ in range(12)]

    assert totals == [7] * 12


def test_a_job_can_run_twice():
    """A second run of a job has the same handlers and goes on counting."""
    with SharedPool(2, 1) as pool, pool.workers(0, handlers.Echo, str) as workers:
        workers.run(numbered(3))
        workers.run(numbered(4))

        assert workers.counters.total()[0] == 7


def test_tasks_that_follow_a_reply_go_to_their_worker():
    """A task that a reply gives rise to is done by the worker that it names."""
    source = handlers.Tasks([Task(0, 5, 1)], more={5: Task(0, 6, 1)})
    with SharedPool(3, 1) as pool, pool.workers(0, handlers.Echo, str) as workers:
        workers.run(source)

    (one, first), (other, second) = source.replies
    assert (one, first, second) == (other, 5, 6)


def test_a_long_job_does_not_keep_a_short_one_waiting():
    """Jobs have their turns: a few tasks are done while a job of a minute is under way."""
    over = threading.Event()

    class UntilThen(handlers.Tasks):
        def next_for(self, worker):
            return None if over.is_set() else super().next_for(worker)

    def work(pool):
        with pool.workers(0, partial(handlers.Slow, 0.01), str) as workers:
            workers.run(UntilThen(Task(0, first, 1) for first in range(12_000)))

    with SharedPool(2, 2) as pool, ThreadPoolExecutor(1) as threads:
        long = threads.submit(work, pool)
        _job(pool, handlers.Echo, 20)
        under_way = not long.done()
        over.set()

    assert under_way


@pytest.mark.parametrize(
    ("make_handler", "kind"),
    [
        (partial(handlers.Raise, CorruptSnapshotError("x", packet=3)), CorruptSnapshotError),
        (handlers.Bug, ZeroDivisionError),
        (partial(handlers.RaiseUnpicklable, "lost"), RuntimeError),
        (handlers.broken, FileNotFoundError),
    ],
    ids=["error", "bug", "unpicklable", "not made"],
)
def test_a_handler_that_raises_fails_its_job_only(make_handler, kind):
    """The other job is done, and by the same processes."""
    with SharedPool(2, 2) as pool:
        before = _pids()
        failed, done = _jobs(pool, (make_handler, 10), (handlers.Echo, 100))
        after = _pids()

    assert (type(failed), _numbers(done), after) == (kind, list(range(100)), before)


@pytest.mark.parametrize(
    ("make_handler", "words"),
    [
        (partial(handlers.Kill, signal.SIGKILL), "was ended by SIGKILL"),
        (handlers.Bus, "was ended by SIGBUS"),
        (handlers.Leave, "ended with exit status 3 without a word"),
    ],
    ids=["SIGKILL", "SIGBUS", "exit"],
)
def test_a_worker_that_dies_fails_the_job_that_it_worked_for(make_handler, words):
    """The error is the one of a single run, and the other job is done, each task once."""
    with SharedPool(2, 2) as pool:
        failed, done = _jobs(pool, (make_handler, 10), (handlers.Echo, 300))

    assert isinstance(failed, WorkerDiedError)
    assert f" {words} while it had packet " in str(failed)
    assert (_numbers(done), done[1][0]) == (list(range(300)), 300)


def test_a_death_is_explained_by_its_own_job():
    """The job that failed is asked for what may explain the signal."""
    with SharedPool(2, 2) as pool:
        failed, _ = _jobs(
            pool,
            (handlers.Bus, 4, lambda number: f" because of signal {number}"),
            (handlers.Echo, 50, lambda _number: " because of the other"),
        )

    assert "SIGBUS because of signal 7 while" in str(failed)


def test_dead_workers_are_replaced():
    """After jobs that each killed all workers there are as many as before."""
    with SharedPool(2, 1) as pool:
        for _ in range(3):
            with pytest.raises(WorkerDiedError):
                _job(pool, partial(handlers.Kill, signal.SIGKILL), 10)
        processes.wait_for(lambda: len(pool._processes.workers) == 2)
        replies, _ = _job(pool, partial(handlers.Slow, 0.05), 40)

    assert len({pid for pid, _ in replies}) == 2


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_fails_no_job():
    """It is replaced, and what comes after it is done."""
    with SharedPool(2, 1) as pool:
        _job(pool, handlers.Echo, 10)
        victim = min(_pids())
        processes.send(signal.SIGKILL, [victim])
        processes.all_gone([victim])
        outcome = _job(pool, handlers.Echo, 100)

    assert _numbers(outcome) == list(range(100))


def test_jobs_fail_when_no_worker_is_left():
    """Workers that die again and again without a task are not replaced for ever."""

    def nobody_left():
        processes.send(signal.SIGKILL, _pids())
        with pool._changed:  # not while a dead one is being replaced
            return not pool._processes.workers

    with SharedPool(1, 1) as pool:
        processes.wait_for(nobody_left)
        with pytest.raises(WorkerDiedError, match="no worker is left"):
            _job(pool, handlers.Echo, 10)


@pytest.mark.parametrize("size", [1, 2])
def test_a_job_that_is_cancelled_is_left_soon(monkeypatch, size):
    """Workers that are at a task of a minute are ended, and others take their places."""
    monkeypatch.setattr(shared, "_LAST_TASKS_S", 0.1)
    cancellation = Cancellation()

    def work(pool):
        with cancellation.here():
            _job(pool, partial(handlers.Slow, 60), 10)

    started = time.monotonic()
    with SharedPool(size, 2) as pool, ThreadPoolExecutor(1) as threads:
        long = threads.submit(work, pool)
        processes.wait_for(lambda: any(each.tasks for each in pool._processes.workers.values()))
        cancellation.cancel(CancelledError("enough"))
        with pytest.raises(CancelledError, match="enough"):
            long.result()
        outcome = _job(pool, handlers.Echo, 50)

    assert (_numbers(outcome), time.monotonic() - started < 55) == (list(range(50)), True)


def test_nothing_is_left_afterwards():
    """Processes, threads and files of a pool are gone with it."""
    with SharedPool(1, 1) as pool:  # what is made once, such as locks of modules
        _job(pool, handlers.Echo, 1)
    before = (len(list(Path("/proc/self/fd").iterdir())), threading.active_count())
    with SharedPool(2, 2) as pool:
        _jobs(pool, (handlers.Echo, 10), (handlers.Bug, 10))

    assert _pids() == set()
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def test_a_source_that_raises_fails_its_job_only():
    """Where tasks are made is the job's own affair too."""

    class Broken(handlers.Tasks):
        def next_for(self, _worker):
            raise OSError(5, "Input/output error", "image")

    with SharedPool(2, 2) as pool:
        with (
            pool.workers(0, handlers.Echo, str) as workers,
            pytest.raises(OSError, match="Input/output"),
        ):
            workers.run(Broken([]))
        outcome = _job(pool, handlers.Echo, 10)

    assert _numbers(outcome) == list(range(10))


def test_tasks_of_each_job_are_announced_to_its_own_handler():
    """A handler hears of its job's tasks in order, each before it is done, and of no other's."""
    with SharedPool(1, 3) as pool:
        outcomes = _jobs(pool, *[(handlers.Heard, 30)] * 3)
        outcomes.append(_job(pool, handlers.Heard, 30))  # in a slot that another job had

    for replies, _ in outcomes:
        for number, heard in enumerate(replies):
            assert heard == list(range(len(heard)))
            assert len(heard) > number


UNGUARDED = """
import multiprocess, os, signal, sys
from snapmig.workers.shared_pool import SharedPool
from tests.support import handlers
print("begun", flush=True)
with SharedPool(1, 1) as pool:
    for _ in range(2):
        source = handlers.numbered(10)
        with pool.workers(0, handlers.Echo, str) as workers:
            workers.run(source)
        before = multiprocess.active_children()[0]
        os.kill(before.pid, signal.SIGKILL)
        before.join()
    print(len(source.replies))
"""


def test_a_script_is_not_run_again_by_workers_that_follow_dead_ones(tmp_path):
    """Not even a script without a guard around what it does."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    result = program.call(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )

    assert (result.out.split(), result.err) == (["begun", "10"], "")
