"""Inside a worker process: take a task, run it, reply, until the parent closes the pipe."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from multiprocess.reduction import recv_handle

from snapmig.system.libc import die_with_parent, keep_freed_memory
from snapmig.workers.counters import Row, open_row
from snapmig.workers.tasks import Handler, Task, Word, pack_failure, pack_reply, unpack_message

__all__ = ("BUSY", "WORKER_SIGNALS", "WorkerPlan", "work")

BUSY = 0
"""The counter of a worker's own row that is 1 while it opens a job or does a task."""

LARGEST_BUFFER = 8 << 20
"""Bytes of the largest buffer that a worker uses again and again: packets have up to 4 MiB."""
FREE_MEMORY = 32 << 20
"""Bytes that a worker keeps of what it has freed: what its largest batches take."""

WORKER_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Signals whose handlers a worker must not have from its parent: blocked while it starts."""


class WorkerPlan(NamedTuple):
    """
    Parameters of a new worker.

    :param slots: its rows in the counters: one for each job at a time
    :param parent: process id of the parent if it started us itself, else None
    :param inherited: descriptors of other workers' pipes, inherited by a fork
    :param says_hello: send an empty message when ready
    """

    number: int
    slots: int
    parent: int | None
    counters_path: str
    inherited: Sequence[int]
    says_hello: bool = False


def work(plan: WorkerPlan, pipe: Any, make_handler: Callable[[], Handler] | None = None) -> None:
    """
    Run a worker process.

    :param make_handler: the handler of slot 0, if already known
    """
    _settle(plan)
    # The parent is gone: there is nobody left to tell.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        own = open_row(plan.counters_path, (plan.number + 1) * plan.slots - 1)
        jobs: dict[int, _Open] = {}
        queue: deque[_Asked] = deque()
        if plan.says_hello:
            pipe.send_bytes(b"")
        if make_handler is not None:
            jobs[0] = _Open(plan, 0, make_handler)
        while True:
            own[BUSY] = 0
            while not queue or pipe.poll():
                _hear(pipe, jobs, queue)
            own[BUSY] = 1
            slot, asked = queue.popleft()
            if isinstance(asked, Task):
                pipe.send_bytes(jobs[slot].reply_to(asked))
            else:
                jobs[slot] = _Open(plan, slot, partial(_make_stored, asked))
                for _, later in [each for each in queue if each[0] == slot]:
                    if isinstance(later, Task):
                        jobs[slot].expect(later)


_Asked = tuple[int, Task | str]
"""A slot, and a task for its job or the path of the job's handler."""


def _hear(pipe: Any, jobs: dict[int, _Open], queue: deque[_Asked]) -> None:
    # Tasks queue in order, so that the parent knows the current task of a dead worker. A task is
    # announced at once if its handler exists, otherwise as soon as it is made.
    word, slot, content = unpack_message(pipe.recv_bytes())
    if word == Word.CLOSE:  # comes when all tasks of the job are done
        if jobs.pop(slot, None) is not None:
            gc.collect()  # mappings and files end with their last reference
    elif word == Word.OPEN:
        queue.append((slot, os.fsdecode(content)))
    else:
        task = Task.unpack(content)
        if task.has_descriptor:
            task = task._replace(descriptor=recv_handle(pipe))
        queue.append((slot, task))
        if slot in jobs:
            jobs[slot].expect(task)


def _make_stored(path: str) -> Handler:
    # Builds the handler from its pickled factory.
    make: Callable[[], Handler] = pickle.loads(Path(path).read_bytes())
    return make()


class _Open:
    # A job with a handler here. If that could not be made, the reason answers each of its tasks.
    def __init__(self, plan: WorkerPlan, slot: int, make_handler: Callable[[], Handler]) -> None:
        self._handler: Handler | None = None
        self._row: Row | None = None
        self._failure = b""
        try:
            self._row = open_row(plan.counters_path, plan.number * plan.slots + slot)
            self._handler = make_handler()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            self._failure = pack_failure(error)

    def expect(self, task: Task) -> None:
        try:
            if self._handler is not None:
                self._handler.expect(task)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            self._handler, self._failure = None, pack_failure(error)

    def reply_to(self, task: Task) -> bytes:
        if self._handler is None or self._row is None:
            return self._failure
        try:
            reply = self._handler.run(task, self._row)
            return pack_reply(reply, self._handler.notes())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            return pack_failure(error)


def _settle(plan: WorkerPlan) -> None:
    # Ctrl-C reaches the whole process group: the parent decides what it means. A worker that
    # keeps another worker's pipe open would keep that one from seeing its parent's end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays in force
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
    keep_freed_memory(LARGEST_BUFFER, FREE_MEMORY)
    for fd in plan.inherited:
        os.close(fd)
    if plan.parent is not None:
        die_with_parent()
        if os.getppid() != plan.parent:
            os._exit(1)
