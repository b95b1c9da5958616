"""The inside of a worker process: take a task, do it, reply, until the parent closes the pipe."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from snapmig.fleet.cells import open_row
from snapmig.fleet.tasks import Handler, Task, pack_failure, pack_reply
from snapmig.system.libc import die_with_parent

__all__ = ("WORKER_SIGNALS", "WorkerPlan", "work")

WORKER_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""Signals whose handlers a worker must not have from its parent: blocked while it starts."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """
    What a worker needs to know to start.

    :param parent: process id of the parent when it started us itself, else None
    :param inherited: descriptors of other workers' pipes that a fork brought along
    """

    number: int
    parent: int | None
    cells_path: str
    inherited: Sequence[int]


def work(plan: WorkerPlan, pipe: Any, make_handler: Callable[[], Handler]) -> None:
    """Run a worker process."""
    _settle(plan)
    # The parent being gone needs no word: there is nobody left to hear it.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            row = open_row(plan.cells_path, plan.number)
            handler = make_handler()
            tasks: deque[Task] = deque()
            while True:
                while not tasks or pipe.poll():
                    tasks.append(Task.unpack(pipe.recv_bytes()))
                    handler.expect(tasks[-1])
                task = tasks.popleft()
                reply = handler.run(task, row)
                pipe.send_bytes(pack_reply(reply, handler.notes()))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            pipe.send_bytes(pack_failure(error))


def _settle(plan: WorkerPlan) -> None:
    # Ctrl-C reaches the whole process group: the parent decides what it means. A worker that
    # keeps another worker's pipe open would keep that one from seeing its parent's end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup stays in force
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
    for fd in plan.inherited:
        os.close(fd)
    if plan.parent is not None:
        die_with_parent()
        if os.getppid() != plan.parent:
            os._exit(1)
