"""
Worker processes from the parent's side: start, send tasks, replace dead ones, end.

Nothing here shares a lock with a worker, so a dead one blocks nobody.
"""

from __future__ import annotations

import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from os import getpid
from selectors import EVENT_READ, EpollSelector
from typing import Any

import multiprocess
from multiprocess.connection import wait
from multiprocess.reduction import send_handle

from snapmig.system.limits import start_failure
from snapmig.workers.counters import Row, SharedCounters
from snapmig.workers.entry import enter
from snapmig.workers.job import Job
from snapmig.workers.tasks import Handler, Task, Word, pack_message
from snapmig.workers.worker import BUSY, WORKER_SIGNALS, WorkerPlan, work

__all__ = ("Worker", "WorkerProcesses")

_END_S = 5.0


class Worker:
    """
    One worker process.

    :ivar tasks: tasks given to it, in the order of execution; it works on the first
    :ivar opened: slots of the jobs with a handler in this worker
    :ivar ready: may be given tasks
    """

    def __init__(self, number: int, process: Any, pipe: Any, *, ready: bool) -> None:
        self.number = number
        self.process = process
        self.pipe = pipe
        self.ready = ready
        self.tasks: deque[tuple[Job, Task]] = deque()
        self.opened: set[int] = set()

    def send(self, job: Job, task: Task) -> None:
        """Send a task, preceded by the job's handler if it is the first of its job."""
        if job.slot not in self.opened:
            self.opened.add(job.slot)
            self._tell(pack_message(Word.OPEN, job.slot, job.plan_path))
        self.tasks.append((job, task))
        job.waiting += 1
        self._tell(pack_message(Word.TASK, job.slot, task.pack()))
        if task.has_descriptor:
            with suppress(BrokenPipeError, ConnectionResetError):
                send_handle(self.pipe, task.descriptor, None)

    def close(self, slot: int) -> None:
        """Have it drop a job's handler after its remaining tasks."""
        if slot in self.opened:
            self.opened.remove(slot)
            self._tell(pack_message(Word.CLOSE, slot))

    @property
    def sentinel(self) -> int:
        """Descriptor that is readable once the process has ended."""
        return int(self.process.sentinel)

    def death(self) -> tuple[str, int]:
        """Return the cause of a worker's death in words, and the signal or 0."""
        self.process.join(_END_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}", -code
        return f"ended with exit status {code} without a word", 0

    def _tell(self, message: bytes) -> None:
        # A broken pipe means a dead worker; its sentinel will tell why.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(message)


class WorkerProcesses:
    """
    The workers of one run, or of several jobs.

    :param slots: jobs at a time
    :ivar workers: by their numbers
    """

    def __init__(self, size: int, slots: int = 1) -> None:
        self.size = size
        self.workers: dict[int, Worker] = {}
        self.counters = SharedCounters(size, slots + 1)
        # Kept between waits: to watch 64 workers anew took 0.3 ms of each wait.
        self._watched = EpollSelector()

    def start(self, make_handler: Callable[[], Handler] | None = None) -> None:
        """
        Start all workers.

        :param make_handler: the handler of slot 0, if already known
        """
        # A fork is ready in 10 ms where a fresh interpreter takes 200 for numpy alone; but forking
        # a process that has other threads can deadlock the child, so then a server forks.
        fork = threading.active_count() == 1
        for number in range(self.size):
            self._start(number, make_handler, fork=fork)
            if make_handler is not None:
                self.workers[number].opened.add(0)

    def replace(self, worker: Worker) -> None:
        """Start a process in place of a dead worker. It reports when it is ready."""
        self.remove(worker)
        self._own_row(worker.number)[BUSY] = 0
        self._start(worker.number, None, fork=False, says_hello=True)

    def wait(self, seconds: float, wakers: Sequence[Any] = ()) -> dict[Worker, bool]:
        """
        Wait for a message of a worker, the death of one, or a readable waker.

        :return: workers heard of: True if one sent something, False if it only died
        """
        if wakers:
            wait([self._watched, *wakers], seconds)
            seconds = 0
        heard: dict[Worker, bool] = {}
        for key, _events in self._watched.select(seconds):
            worker, is_pipe = key.data
            heard[worker] = heard.get(worker, False) or is_pipe
        return heard

    def was_busy(self, worker: Worker) -> bool:
        """Return whether a dead worker was executing a task."""
        return bool(self._own_row(worker.number)[BUSY])

    def _own_row(self, number: int) -> Row:
        row: Row = self.counters.rows[(number + 1) * self.counters.slots - 1]
        return row

    def remove(self, worker: Worker) -> None:
        """Forget a worker that is dead or dying."""
        del self.workers[worker.number]
        for watched in (worker.pipe, worker.sentinel):
            self._watched.unregister(watched)
        worker.pipe.close()
        worker.process.join(_END_S)
        with suppress(ValueError):  # not even SIGKILL ended it yet
            worker.process.close()

    def end(self) -> None:
        """Kill all workers and wait for them."""
        for worker in self.workers.values():
            worker.process.kill()
        for worker in list(self.workers.values()):
            self.remove(worker)
        self._watched.close()
        self.counters.close()

    def _start(
        self,
        number: int,
        make_handler: Callable[[], Handler] | None,
        *,
        fork: bool,
        says_hello: bool = False,
    ) -> None:
        context = multiprocess.get_context("fork" if fork else "forkserver")
        with _start_failures(number, self.size), _signals_blocked(), ExitStack() as stack:
            ours, theirs = context.Pipe()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            inherited = [w.pipe.fileno() for w in self.workers.values()]
            inherited += [ours.fileno(), self._watched.fileno()]
            plan = WorkerPlan(
                number,
                self.counters.slots,
                parent=getpid() if fork else None,
                counters_path=self.counters.path_for_workers,
                inherited=inherited if fork else (),
                says_hello=says_hello,
            )
            if fork:
                process = context.Process(target=work, args=(plan, theirs, make_handler))
            else:
                told = pickle.dumps((plan, make_handler))
                process = context.Process(target=enter, args=(theirs, told))
            _begin(process, fork=fork)
            stack.pop_all()
            theirs.close()
            worker = Worker(number, process, ours, ready=not says_hello)
            self.workers[number] = worker
            for watched in (worker.pipe, worker.sentinel):
                self._watched.register(watched, EVENT_READ, (worker, watched is worker.pipe))


def _begin(process: Any, *, fork: bool) -> None:
    process.daemon = True
    with nullcontext() if fork else _without_main(), warnings.catch_warnings():
        # Python 3.12 also counts the idle threads of numpy's linear algebra, which has its own care
        # for forks and is not used here.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()


@contextmanager
def _start_failures(number: int, size: int) -> Iterator[None]:
    # The fork server dies of a process that it can't make; then we read the end of its pipe.
    try:
        yield
    except OSError as error:
        raise start_failure(f"worker {number} of {size}", error) from error
    except EOFError as error:
        raise start_failure(f"worker {number} of {size}") from error


@contextmanager
def _without_main() -> Iterator[None]:
    # A process of the fork server would run the caller's main module again, for definitions in it.
    # Workers need none of them; but a script without the usual guard would begin anew.
    from multiprocess import spawn  # noqa: PLC0415 - a fork needs none of it

    prepare = spawn.get_preparation_data

    def prepare_without(name: str) -> dict[str, Any]:
        data = prepare(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main")}

    spawn.get_preparation_data = prepare_without
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


@contextmanager
def _signals_blocked() -> Iterator[None]:
    # A signal between the fork and the child's own handlers would run the parent's in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
