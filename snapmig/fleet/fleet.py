"""
The parent's side of the workers: one small pipe each, and a wait on all of them.

A worker that raises, is killed or dies ends the run at once with that cause; the others are
killed, nothing is left behind. No lock is shared with a worker, so a dead one stops nobody.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import getpid
from typing import Any

import multiprocess
from multiprocess.connection import wait

from snapmig.errors import WorkerDiedError
from snapmig.fleet.cells import Cells
from snapmig.fleet.tasks import Handler, Task, TaskSource, unpack_reply
from snapmig.fleet.worker import WORKER_SIGNALS, WorkerPlan, work

__all__ = ("TASKS_AHEAD", "Fleet")

TASKS_AHEAD = 2
"""Tasks in a worker's pipe: the one it does and the next, so that it never waits for the parent."""

POLL_S = 0.1
"""Seconds between two looks at the counters while nothing else happens."""

_END_S = 5.0


class _Worker:
    # One worker process as the parent knows it.
    def __init__(self, number: int, process: Any, pipe: Any) -> None:
        self.number = number
        self.process = process
        self.pipe = pipe
        self.tasks: deque[Task] = deque()

    def send(self, task: Task) -> None:
        self.tasks.append(task)
        # A broken pipe is a dead worker: its sentinel tells why, in a moment.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(task.pack())


class Fleet:
    """
    Worker processes for one run.

    :param jobs: how many
    :param make_handler: called in each worker; must be picklable
    :param describe: adds to the words for a worker that died of a signal what may explain it
    :param ahead: tasks in a worker's pipe
    :ivar notes: what workers found worth telling, each sentence once, in the order of arrival
    """

    def __init__(
        self,
        jobs: int,
        make_handler: Callable[[], Handler],
        describe: Callable[[int], str] = lambda _signal: "",
        ahead: int = TASKS_AHEAD,
    ) -> None:
        self.jobs = jobs
        self._ahead = ahead
        self._make_handler = make_handler
        self._describe = describe
        self._workers: list[_Worker] = []
        self.cells = Cells(jobs)
        self.notes: dict[str, None] = {}

    def __enter__(self) -> Fleet:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(_END_S)
            worker.pipe.close()
        self._workers.clear()
        self.cells.close()

    def run(self, source: TaskSource, poll: Callable[[], None] = lambda: None) -> None:
        """
        Have all tasks of a source done.

        :param poll: called often, for progress
        :raises WorkerDiedError: a worker ended without a word
        :raises Exception: what a worker raised, as it raised it
        """
        while self._hand_out(source):
            pipes = {worker.pipe: worker for worker in self._workers}
            ends = [worker.process.sentinel for worker in self._workers]
            ready = wait([*pipes, *ends], POLL_S)
            for pipe in [item for item in ready if item in pipes]:
                self._receive(pipes[pipe], source)
            for worker in self._workers:
                if worker.process.sentinel in ready:
                    if worker.pipe.poll():  # its last words came after the wait had looked there
                        self._receive(worker, source)
                    raise self._died(worker)
            poll()

    def _hand_out(self, source: TaskSource) -> bool:
        for ahead in range(1, self._ahead + 1):
            for worker in self._workers:
                if len(worker.tasks) < ahead:
                    task = source.next_for(worker.number)
                    if task is not None:
                        worker.send(task)
        return any(worker.tasks for worker in self._workers) or source.waiting

    def _receive(self, worker: _Worker, source: TaskSource) -> None:
        try:
            raw = worker.pipe.recv_bytes()
        except (EOFError, ConnectionResetError) as error:
            raise self._died(worker) from error
        reply, notes = unpack_reply(raw)
        self.notes.update(dict.fromkeys(notes))
        task = worker.tasks.popleft()
        for number, more in source.finished(worker.number, task, reply):
            self._workers[number].send(more)

    def _died(self, worker: _Worker) -> WorkerDiedError:
        worker.process.join(_END_S)
        code = worker.process.exitcode
        doing = f" while it had {worker.tasks[0].shown}" if worker.tasks else ""
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            cause = f"was ended by {name}{self._describe(-code)}"
        else:
            cause = f"ended with exit status {code} without a word"
        return WorkerDiedError(f"worker {worker.number} {cause}{doing}")

    def _start(self) -> None:
        # A fork is ready in 10 ms where a fresh interpreter takes 200 for numpy alone; but forking
        # a process that has other threads can deadlock the child, so then a server forks.
        fork = threading.active_count() == 1
        context = multiprocess.get_context("fork" if fork else "forkserver")
        with _signals_blocked(), warnings.catch_warnings():
            # Python 3.12 also counts the idle threads of numpy's linear algebra, which has its own
            # care for forks and is not used here.
            warnings.filterwarnings(
                "ignore", "This process .* is multi-threaded", DeprecationWarning
            )
            for number in range(self.jobs):
                ours, theirs = context.Pipe()
                inherited = [w.pipe.fileno() for w in self._workers] + [ours.fileno()]
                plan = WorkerPlan(
                    number,
                    parent=getpid() if fork else None,
                    cells_path=self.cells.path_for_workers,
                    inherited=inherited if fork else (),
                )
                process = context.Process(
                    target=work, args=(plan, theirs, self._make_handler), daemon=True
                )
                process.start()
                theirs.close()
                self._workers.append(_Worker(number, process, ours))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    # A signal between the fork and the child's own handlers would run the parent's in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
