"""
Messages on a worker's pipe: words and tasks one way, replies the other, never page data.

A worker may hold the handlers of several jobs. The parent passes the path of a pickled handler
factory, because a large plan would fill the pipe. Tasks run and are answered in order.
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
from snapmig.workers.counters import Row

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

_TASK = struct.Struct("<BQQq?")
_WORD = struct.Struct("<BH")


class Word(IntEnum):
    """Messages of the parent to a worker about the job in a slot."""

    TASK = 0
    """Do the task that follows, and reply."""
    OPEN = 1
    """Make the job's handler, as the file whose path follows says."""
    CLOSE = 2
    """Let go of it."""


class Task(NamedTuple):
    """
    A batch of consecutive packets.

    :param kind: a number defined by the handler
    :param argument: another number, for kinds with a parameter
    :param descriptor: of an open file given to the worker with the task, -1 for none
    """

    kind: int
    first: int
    count: int  # type: ignore[assignment]  # a tuple's own "count" is of no use here
    argument: int = 0
    descriptor: int = -1

    @property
    def has_descriptor(self) -> bool:
        """True if a descriptor goes with it."""
        return self.descriptor >= 0

    def pack(self) -> bytes:
        """Return the task as bytes for the pipe, with no more than a note of its descriptor."""
        return _TASK.pack(*self[:4], self.has_descriptor)

    @classmethod
    def unpack(cls, raw: bytes) -> Task:
        """Return the task in a message; a descriptor, still to be received, is 0."""
        kind, first, count, argument, has_descriptor = _TASK.unpack(raw)
        return cls(kind, first, count, argument, 0 if has_descriptor else -1)

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
    """Executes tasks in a worker. Created there, so its files and buffers belong to the worker."""

    def run(self, task: Task, row: Row) -> Any:
        """Execute one task, count finished work in the row, and return a small picklable reply."""

    def expect(self, task: Task) -> None:
        """Prepare for a task that follows soon; may begin slow work that needs no processor."""

    def notes(self) -> Sequence[str]:
        """Return new remarks for the user, a sentence each."""


class TaskSource(Protocol):
    """Hands out tasks and takes replies, in the parent."""

    @property
    def waiting(self) -> bool:
        """True if there will be tasks later although nobody has one now."""

    def next_for(self, worker: int) -> Task | None:
        """Return the next task for a worker, or None if it has none for it now."""

    def finished(self, worker: int, task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Take a reply. Return tasks that must now go to certain workers."""

    def lost(self, worker: int, tasks: Sequence[Task]) -> None:
        """
        Note the death of a worker and the reuse of its number: hand out its tasks again.

        :param tasks: tasks given to it and not begun
        """


def pack_message(word: Word, slot: int, content: bytes = b"") -> bytes:
    """Return a message to a worker as bytes."""
    return _WORD.pack(word, slot) + content


def unpack_message(raw: bytes) -> tuple[Word, int, bytes]:
    """Return a message's word, its slot, and the rest."""
    word, slot = _WORD.unpack_from(raw)
    return Word(word), slot, raw[_WORD.size :]


def pack_reply(reply: Any, notes: Sequence[str] = ()) -> bytes:
    """Return a reply as bytes for the pipe."""
    return _pickled((True, (reply, tuple(notes))))


def pack_failure(error: BaseException) -> bytes:
    """
    Return an exception as bytes for the pipe. A bug's traceback is added as a note.

    Exceptions that can't be pickled become a RuntimeError with the same message.
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

    :raises BaseException: the exception of the worker
    """
    ok, content = pickle.loads(raw)
    if not ok:
        raise content
    reply, notes = content
    return reply, notes


def _pickled(content: object) -> bytes:
    # Without other libraries' global reducers: Dask's pickle exceptions with their causes, and
    # not all causes can be pickled.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.dispatch_table = {}
    pickler.dump(content)
    return buffer.getvalue()
