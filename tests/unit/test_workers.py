"""Facts about worker processes: fed, watched and ended, whatever becomes of them."""

import copyreg
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import multiprocess
import pytest

from snapmig import errors
from snapmig.errors import CorruptSnapshotError, WorkerDiedError
from snapmig.workers.counters import COUNTERS, SharedCounters, open_row
from snapmig.workers.pool import WorkerPool
from snapmig.workers.tasks import Task, pack_failure, pack_reply
from tests.support import handlers, processes
from tests.support.handlers import numbered

ROOT = Path(__file__).parents[2]
ERRORS = [getattr(errors, name) for name in errors.__all__]


def _run(make_handler, *, jobs=2, tasks=10, **options):
    source = numbered(tasks)
    with WorkerPool(jobs, make_handler, **options) as pool:
        pool.run(source)
        return source.replies, pool.counters.total()


def _script(code, *arguments):
    # A process of its own, for what would leave something in this one.
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("tasks", [0, 1, 100])
def test_every_task_is_done_once(jobs, tasks):
    """However many workers there are, each task has one reply."""
    replies, _ = _run(handlers.Echo, jobs=jobs, tasks=tasks)

    assert sorted(first for _, first in replies) == list(range(tasks))


def test_workers_are_other_processes():
    """Tasks are done in two processes that are not this one."""
    replies, _ = _run(handlers.Echo, tasks=1000)

    assert len({pid for pid, _ in replies} - {os.getpid()}) == 2


def test_what_workers_count_adds_up():
    """The counters of all workers together have counted every task."""
    _, total = _run(handlers.Echo, jobs=3, tasks=100)

    assert total.tolist() == [100] + [0] * (COUNTERS - 1)


def test_tasks_that_follow_a_reply_go_to_their_worker():
    """A task that a reply gives rise to is done by the worker that it names."""
    source = handlers.Tasks([Task(0, 5, 1)], more={5: Task(0, 6, 1)})
    with WorkerPool(2, handlers.Echo) as pool:
        pool.run(source)

    (one, first), (other, second) = source.replies
    assert (one, first, second) == (other, 5, 6)


def test_progress_is_asked_for_while_workers_work():
    """The poll function is called."""
    calls = []
    with WorkerPool(1, handlers.Echo) as pool:
        pool.run(numbered(3), lambda: calls.append(1))

    assert calls


def test_no_worker_is_left_after_a_run():
    """When the block is left, its processes are gone."""
    _run(handlers.Echo)

    assert multiprocess.active_children() == []


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_crosses_intact(kind):
    """An exception of a worker arrives with its class, its words and its place."""
    error = kind("it broke", path="/a", packet=3, offset=4096)

    with pytest.raises(kind) as caught:
        _run(partial(handlers.Raise, error))

    assert (kind, error.args, vars(error)) == (
        type(caught.value),
        caught.value.args,
        vars(caught.value),
    )


def test_an_error_of_the_system_crosses_intact():
    """An OSError keeps its number and its path."""
    with pytest.raises(PermissionError) as caught:
        _run(partial(handlers.Raise, PermissionError(13, "Permission denied", "/a")))

    assert (caught.value.errno, caught.value.filename) == (13, "/a")


def test_a_bug_arrives_with_the_workers_traceback():
    """A bug's exception has the worker's traceback as a note."""
    with pytest.raises(ZeroDivisionError) as caught:
        _run(handlers.Bug)

    assert "handlers.py" in caught.value.__notes__[0]


@pytest.mark.parametrize("pack", [pack_reply, pack_failure])
def test_what_libraries_register_for_pickling_errors_is_not_used(monkeypatch, pack):
    """Dask has causes go along, and not every cause can be pickled."""

    def refuse(error):
        raise TypeError(f"can't pickle the cause of {error}")

    monkeypatch.setitem(copyreg.dispatch_table, CorruptSnapshotError, refuse)
    content = pickle.loads(pack(CorruptSnapshotError("bad", packet=7)))[1]
    error = content[0] if pack is pack_reply else content
    assert (type(error), str(error)) == (CorruptSnapshotError, "packet 7: bad")


def test_an_exception_that_can_not_be_pickled_arrives_as_words():
    """An exception that no pipe takes becomes a RuntimeError with the same words."""
    with pytest.raises(RuntimeError, match="Unpicklable: lost"):
        _run(partial(handlers.RaiseUnpicklable, "lost"))


def test_a_handler_that_can_not_be_made_ends_the_run():
    """An error before the first task arrives like any other."""
    with pytest.raises(FileNotFoundError) as caught:
        _run(handlers.broken)

    assert caught.value.filename == "image"


@pytest.mark.parametrize(
    ("make_handler", "words"),
    [
        (partial(handlers.Kill, signal.SIGKILL), "was ended by SIGKILL"),
        (partial(handlers.Kill, signal.SIGSEGV), "was ended by SIGSEGV"),
        (partial(handlers.Kill, signal.SIGTERM), "was ended by SIGTERM"),
        (handlers.Bus, "was ended by SIGBUS"),
        (handlers.Leave, "ended with exit status 3 without a word"),
    ],
    ids=["SIGKILL", "SIGSEGV", "SIGTERM", "SIGBUS", "exit"],
)
def test_a_worker_that_dies_ends_the_run_with_the_cause(make_handler, words):
    """The error says which worker died, of what, and what it had to do."""
    with pytest.raises(WorkerDiedError, match=rf"worker [01] {words} while it had packet \d"):
        _run(make_handler)


def test_a_signal_is_explained_by_the_caller():
    """A possible cause of the signal is added to the words."""
    with pytest.raises(WorkerDiedError, match="SIGBUS because of signal 7 while"):
        _run(handlers.Bus, describe=lambda number: f" because of signal {number}")


def test_a_death_ends_the_run_while_others_are_busy():
    """Nobody waits for workers that have a minute of work left."""
    started = time.monotonic()
    with pytest.raises(WorkerDiedError):
        _run(handlers.Sleep)

    assert time.monotonic() - started < 55


@pytest.mark.parametrize(
    "make_handler", [handlers.Bug, handlers.Leave, handlers.Sleep], ids=["bug", "exit", "kill"]
)
def test_no_worker_is_left_after_a_failure(make_handler):
    """When a run fails, its processes are gone."""
    with pytest.raises((ZeroDivisionError, WorkerDiedError)):
        _run(make_handler)

    assert multiprocess.active_children() == []


def test_workers_do_not_heed_ctrl_c():
    """SIGINT reaches the whole group; what it means is the parent's decision."""
    source = numbered(100)
    with WorkerPool(2, handlers.Echo) as pool:
        pool.run(numbered(10))
        processes.send(signal.SIGINT, [child.pid for child in multiprocess.active_children()])
        pool.run(source)

    assert len(source.replies) == 100


def test_a_worker_maps_its_own_row():
    """A number that a worker adds to its row is seen in that row only."""
    counters = SharedCounters(3)
    open_row(counters.path_for_workers, 1)[2] += 5

    assert (counters.rows.sum(), counters.rows[1, 2]) == (5, 5)


@pytest.mark.parametrize(
    "task", [Task(0, 0, 1), Task(2, 1 << 40, 4096, (1 << 63) - 1), Task(1, 0, 8, -7)]
)
def test_a_task_comes_back_as_it_was(task):
    """A task crosses the pipe in few bytes."""
    assert task == Task.unpack(task.pack())


@pytest.mark.parametrize(
    ("task", "words"), [(Task(0, 4, 1), "packet 4"), (Task(0, 4, 3), "packets 4 to 6")]
)
def test_a_task_in_words(task, words):
    """A task names its packets."""
    assert words == task.shown


THREADED = """
import os, pickle, sys, threading
from functools import partial
from snapmig.workers.pool import WorkerPool
from tests.support import handlers
threading.Thread(target=threading.Event().wait, daemon=True).start()
make_handler = pickle.loads(bytes.fromhex(sys.argv[1]))
source = handlers.numbered(50)
try:
    with WorkerPool(2, make_handler) as pool:
        pool.run(source)
    print(sorted(first for _, first in source.replies) == list(range(50)))
except BaseException as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("make_handler", "words"),
    [
        (handlers.Echo, "True"),
        (partial(handlers.Raise, errors.CorruptSnapshotError("x", packet=3)), "packet 3: x"),
        (handlers.Bug, "ZeroDivisionError"),
        (handlers.Leave, "ended with exit status 3 without a word"),
        (handlers.Bus, "was ended by SIGBUS"),
    ],
    ids=["works", "raises", "bug", "exit", "SIGBUS"],
)
def test_a_caller_with_threads_gets_the_same(make_handler, words):
    """Where the caller has another thread, workers come from a server and do the same."""
    with _script(THREADED, pickle.dumps(make_handler).hex()) as process:
        out, err = process.communicate(timeout=60)

    assert (words in out, err) == (True, "")


ORPHANS = """
import sys, threading, time
import multiprocess
from snapmig.workers.pool import WorkerPool
from tests.support import handlers
from tests.support.handlers import Task, Tasks
if sys.argv[1] == "threads":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
with WorkerPool(2, handlers.Echo) as pool:
    pool.run(handlers.numbered(10))
    print(*[child.pid for child in multiprocess.active_children()], flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("threads", ["alone", "threads"])
def test_workers_end_when_their_parent_is_killed(threads):
    """A parent that is killed leaves no worker, whether it forked them or a server did."""
    with _script(ORPHANS, threads) as process:
        workers = [int(word) for word in process.stdout.readline().split()]
        process.kill()
        process.communicate(timeout=60)

    assert (len(workers), processes.all_gone(workers)) == (2, True)


BUSY_ORPHANS = """
from snapmig.workers.pool import WorkerPool
from tests.support import handlers
with WorkerPool(2, handlers.Nap) as pool:
    pool.run(handlers.numbered(2))
"""


def test_busy_workers_end_when_their_parent_is_killed():
    """A worker in the middle of a task of a minute does not outlive its parent."""
    with _script(BUSY_ORPHANS) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        process.wait(timeout=60)

        assert (len(workers), processes.all_gone(workers)) == (2, True)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_worker_hears_of_its_tasks_in_order(ahead):
    """Each task is announced before it is done, once, and no more of them than may wait."""
    tasks = handlers.numbered(20)
    with WorkerPool(1, handlers.Heard) as pool:
        pool.run(tasks, ahead=ahead)

    for number, heard in enumerate(tasks.replies):
        assert heard == list(range(len(heard)))
        assert number < len(heard) <= number + ahead


class _Hesitant(handlers.Tasks):
    # Has no task at every other question, and says that there will be some.
    def next_for(self, worker):
        self.waiting = not self.waiting
        return None if self.waiting else super().next_for(worker)


def test_a_source_that_waits_is_asked_again():
    """No worker having a task is not the end while the source says that there will be one."""
    tasks = _Hesitant([Task(0, first, 1) for first in range(3)])
    with WorkerPool(1, handlers.Echo) as pool:
        pool.run(tasks)

    assert [first for _, first in tasks.replies] == [0, 1, 2]
