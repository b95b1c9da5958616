"""
What compresses and decompresses: coders, of which some have several jobs in flight.

A synchronous library is the case of depth one (:class:`Immediate`); hardware that works by itself
takes more jobs before the first is done. One loop, in ``encoder`` and ``decoder``, serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from snapmig.errors import CorruptSnapshotError
from snapmig.system.files import Buffer

__all__ = ("Coder", "Done", "EngineError", "Immediate")


class EngineError(Exception):
    """An engine did not do its work; software can do it instead."""


class Done(NamedTuple):
    """
    What became of a job.

    :param result: what came out; None when it was more than the limit of a compression
    :param error: an :class:`EngineError`, or the :class:`~snapmig.errors.CorruptSnapshotError` of
        input that can't be decoded
    """

    key: int
    result: Buffer | None
    error: EngineError | CorruptSnapshotError | None = None


class Coder(Protocol):
    """
    Turns byte strings into others, in one process, up to ``depth`` of them at a time.

    :ivar depth: jobs that may be in flight: before one more is submitted, one must be reaped
    """

    depth: int

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """
        Start a job.

        :param key: names it; no two in flight have the same
        :param data: contiguous; stays as it is until the job is reaped
        :param size: bytes of the result: a limit for compression, exact for decompression
        """

    def reap(self) -> Done:
        """
        Wait for one of the jobs in flight, in any order.

        Its result is good until the next :meth:`submit`. Never hangs: a job that takes much too
        long is an :class:`EngineError`.
        """


class Immediate:
    """
    A coder of a function that is done when it returns.

    :param function: takes data and size, returns the result
    """

    depth = 1

    def __init__(self, function: Callable[[Buffer, int], Buffer | None]) -> None:
        self._function = function
        self._done: Done | None = None

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """Do the job."""
        try:
            self._done = Done(key, self._function(data, size))
        except (EngineError, CorruptSnapshotError) as error:
            self._done = Done(key, None, error)

    def reap(self) -> Done:
        """Return what became of it."""
        done, self._done = self._done, None
        if done is None:
            raise RuntimeError("no job is in flight")
        return done
