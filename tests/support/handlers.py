"""Workers' handlers that do next to nothing, or die in a known way; and a source of tasks."""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task


class Silent:
    """A handler without notes and without early work."""

    def expect(self, task: Task) -> None:
        """Do nothing."""

    def notes(self) -> tuple[str, ...]:
        """Say nothing."""
        return ()


class Echo(Silent):
    """Replies with its process id and the task's first packet, and counts in cell 0."""

    def run(self, task: Task, row: Row) -> tuple[int, int]:
        """Count and reply."""
        row[0] += task.count
        return os.getpid(), task.first


class Heard(Silent):
    """Replies with the tasks announced to it so far."""

    def __init__(self) -> None:
        self._heard: list[int] = []

    def expect(self, task: Task) -> None:
        """Remember."""
        self._heard.append(task.first)

    def run(self, task: Task, row: Row) -> list[int]:
        """Reply."""
        row[0] += task.count
        return list(self._heard)


@dataclass
class Raise(Silent):
    """Raises."""

    error: BaseException

    def run(self, _task: Task, _row: Row) -> NoReturn:
        """Raise."""
        raise self.error


class Unpicklable(Exception):  # noqa: N818 - what it is
    """An exception that can't be sent through a pipe."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("can't be pickled")


@dataclass
class RaiseUnpicklable(Silent):
    """Raises an exception that can't be sent through a pipe."""

    words: str

    def run(self, _task: Task, _row: Row) -> NoReturn:
        """Raise."""
        raise Unpicklable(self.words)


class Bug(Silent):
    """Divides by zero."""

    def run(self, task: Task, _row: Row) -> float:
        """Divide."""
        return task.first / (task.count - task.count)


@dataclass
class Kill(Silent):
    """Is ended by a signal."""

    number: int

    def run(self, _task: Task, _row: Row) -> None:
        """End."""
        faulthandler.disable()  # pytest's would print our stack
        os.kill(os.getpid(), self.number)


class Bus(Silent):
    """Reads a mapping whose file has shrunk."""

    def run(self, _task: Task, _row: Row) -> int:
        """Read."""
        faulthandler.disable()  # pytest's would print our stack
        fd = os.memfd_create("shrinks")
        os.ftruncate(fd, 4096)
        view = mmap.mmap(fd, 4096)
        os.ftruncate(fd, 0)
        return view[0]


class Leave(Silent):
    """Ends its process without a message."""

    def run(self, _task: Task, _row: Row) -> NoReturn:
        """End."""
        os._exit(3)


class Sleep(Silent):
    """Replies after a minute, except to packet 0, which kills it."""

    def run(self, task: Task, _row: Row) -> None:
        """Sleep or die."""
        if task.first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


@dataclass
class Slow(Silent):
    """Replies as Echo does, after some seconds."""

    seconds: float

    def run(self, task: Task, _row: Row) -> tuple[int, int]:
        """Sleep and reply."""
        time.sleep(self.seconds)
        return os.getpid(), task.first


class Nap(Silent):
    """Prints its process id and does not reply for a minute."""

    def run(self, _task: Task, _row: Row) -> None:
        """Print and sleep."""
        os.write(1, f"{os.getpid()}\n".encode())
        time.sleep(60)


def broken() -> NoReturn:
    """Fail while making a handler."""
    raise OSError(2, "No such file or directory", "image")


@dataclass
class Tasks:
    """Hands out tasks in order and keeps the replies."""

    tasks: Iterable[Task]
    replies: list[Any] = field(default_factory=list)
    more: dict[int, Task] = field(default_factory=dict)

    waiting = False

    def __post_init__(self) -> None:
        self._left = deque(self.tasks)

    def next_for(self, _worker: int) -> Task | None:
        """Return the next task."""
        return self._left.popleft() if self._left else None

    def finished(self, worker: int, task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Keep the reply; give its worker the follow-up tasks."""
        self.replies.append(reply)
        return [(worker, self.more.pop(task.first))] if task.first in self.more else []

    def lost(self, _worker: int, tasks: Sequence[Task]) -> None:
        """Hand out a dead worker's tasks again."""
        self._left.extend(tasks)


def numbered(count: int) -> Tasks:
    """Return a source of tasks of one packet each."""
    return Tasks(Task(0, first, 1) for first in range(count))
