"""
What passes over a worker's pipe: words and tasks one way, replies the other; never page data.

A worker may have the handlers of several jobs. It is told to open one by the path of a file that
holds how, so that a large plan does not fill the pipe, and does and answers tasks in their order.
"""

from __future__ import annotations

import io
import pickle
import struct
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from snapmig.errors import SnapmigError
from snapmig.fleet.cells import Row

__all__ = (
    "TASKS_AHEAD",
    "Handler",
    "Task",
    "TaskSource",
    "Word",
    "pack_failure",
    "pack_message",
    "pack_reply",
    "unpack_message",
    "unpack_reply",
)

TASKS_AHEAD = 2
"""Tasks in a worker's pipe: the one it does and the next, so that it never waits for the parent."""

_TASK = struct.Struct("<BQQq")
_WORD = struct.Struct("<BH")


class Word(IntEnum):
    """What the parent tells a worker of a job, by the number of its slot."""

    TASK = 0
    """Do the task that follows, and reply."""
    OPEN = 1
    """Make the job's handler, as the file whose path follows says."""
    CLOSE = 2
    """Let go of it."""


class Task(NamedTuple):
    """
    A batch of packets that follow each other.

    :param kind: what to do, a number that the handler understands
    :param argument: a number more, for the kinds that need one
    """

    kind: int
    first: int
    count: int  # type: ignore[assignment]  # a tuple's own "count" is of no use here
    argument: int = 0

    def pack(self) -> bytes:
        """Return the form that crosses the pipe."""
        return _TASK.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Task:
        """Return the task of a message."""
        return cls(*_TASK.unpack(raw))

    @property
    def packets(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.count)

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

    def lost(self, worker: int, tasks: Sequence[Task]) -> None:
        """
        Hear that a worker is gone, and another has its number: hand out again what it had.

        :param tasks: what it was given and had not begun
        """


def pack_message(word: Word, slot: int, content: bytes = b"") -> bytes:
    """Return what a worker is told."""
    return _WORD.pack(word, slot) + content


def unpack_message(raw: bytes) -> tuple[Word, int, bytes]:
    """Return a worker's word, the slot of the job that it is about, and what follows."""
    word, slot = _WORD.unpack_from(raw)
    return Word(word), slot, raw[_WORD.size :]


def pack_reply(reply: Any, notes: Sequence[str] = ()) -> bytes:
    """Return a reply as it crosses the pipe."""
    return _pickled((True, (reply, tuple(notes))))


def pack_failure(error: BaseException) -> bytes:
    """
    Return an exception as it crosses the pipe, with its traceback as a note when it is a bug.

    What can't be pickled goes as a RuntimeError with the same words.
    """
    if not isinstance(error, SnapmigError | OSError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        raw = _pickled((False, error))
        pickle.loads(raw)
    except Exception:  # noqa: BLE001 - any class may fail in any way here
        raw = _pickled((False, RuntimeError("".join(traceback.format_exception(error)))))
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


def _pickled(content: object) -> bytes:
    # Without what libraries register for all: Dask's have exceptions pickled with their causes, of
    # which not all can be.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.dispatch_table = {}
    pickler.dump(content)
    return buffer.getvalue()
