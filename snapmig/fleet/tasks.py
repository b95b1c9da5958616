"""What passes over a worker's pipe: tasks one way, replies the other; never page data."""

from __future__ import annotations

import pickle
import struct
import traceback
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol

from snapmig.errors import SnapmigError
from snapmig.fleet.cells import Row

__all__ = ("Handler", "Task", "TaskSource", "pack_failure", "pack_reply", "unpack_reply")

_TASK = struct.Struct("<BQQq")


@dataclass(frozen=True, slots=True)
class Task:
    """
    A batch of packets that follow each other.

    :param kind: what to do, a number that the handler understands
    :param argument: a number more, for the kinds that need one
    """

    kind: int
    first: int
    count: int
    argument: int = 0

    def pack(self) -> bytes:
        """Return the form that crosses the pipe."""
        return _TASK.pack(*astuple(self))

    @classmethod
    def unpack(cls, raw: bytes) -> Task:
        """Return the task of a message."""
        return cls(*_TASK.unpack(raw))

    @property
    def shown(self) -> str:
        """The packets in words."""
        if self.count == 1:
            return f"packet {self.first}"
        return f"packets {self.first} to {self.first + self.count - 1}"


class Handler(Protocol):
    """Does tasks in a worker; made there, so that its files and buffers are the worker's own."""

    def run(self, task: Task, row: Row) -> Any:
        """Do one task, count in the row what is finished, return a small picklable reply."""

    def expect(self, task: Task) -> None:
        """Hear of a task that will come soon; may begin what takes long and needs no processor."""

    def notes(self) -> Sequence[str]:
        """Return what the user should know and was not returned before, a sentence each."""


class TaskSource(Protocol):
    """
    Hands out tasks and takes replies, in the parent.

    :ivar waiting: nobody has a task, and there will be some later
    """

    waiting: bool

    def next_for(self, worker: int) -> Task | None:
        """Return the next task for a worker, or None when it has none for it now."""

    def finished(self, worker: int, task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Take a reply; return tasks that must go to certain workers now."""


def pack_reply(reply: Any, notes: Sequence[str] = ()) -> bytes:
    """Return a reply as it crosses the pipe."""
    return pickle.dumps((True, (reply, tuple(notes))))


def pack_failure(error: BaseException) -> bytes:
    """
    Return an exception as it crosses the pipe, with its traceback as a note when it is a bug.

    What can't be pickled goes as a RuntimeError with the same words.
    """
    if not isinstance(error, SnapmigError | OSError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        raw = pickle.dumps((False, error))
        pickle.loads(raw)
    except Exception:  # noqa: BLE001 - any class may fail in any way here
        raw = pickle.dumps((False, RuntimeError("".join(traceback.format_exception(error)))))
    return raw


def unpack_reply(raw: bytes) -> tuple[Any, tuple[str, ...]]:
    """
    Return a worker's reply and its notes.

    :raises BaseException: what the worker raised
    """
    ok, content = pickle.loads(raw)
    if not ok:
        raise content
    reply, notes = content
    return reply, notes
