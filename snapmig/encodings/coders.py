"""
Coders: compressors and decompressors, some with several jobs in flight.

A synchronous library is the case of depth one (:class:`Immediate`); asynchronous hardware takes
more jobs before the first is done. One loop, in ``encoder`` and ``decoder``, serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from snapmig.errors import CorruptSnapshotError
from snapmig.system.files import Buffer

__all__ = ("Coder", "Done", "EngineError", "Immediate")


class EngineError(Exception):
    """An engine failed at its work; software can do it instead."""


class Done(NamedTuple):
    """
    The outcome of a job.

    :param result: the output; None if it exceeds the limit of a compression
    :param error: an :class:`EngineError`, or the :class:`~snapmig.errors.CorruptSnapshotError` of
        undecodable input
    """

    key: int
    result: Buffer | None
    error: EngineError | CorruptSnapshotError | None = None


class Coder(Protocol):
    """
    Transforms byte strings in one process, up to ``depth`` of them at a time.

    :ivar depth: jobs that may be in flight; with so many, one must be reaped before the next
    """

    depth: int

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """
        Start a job.

        :param key: its name, unique among the jobs in flight
        :param data: contiguous; must not change until the job is reaped
        :param size: bytes of the result: a limit for compression, exact for decompression
        """

    def reap(self) -> Done:
        """
        Wait for one of the jobs in flight, in any order.

        Its result is valid until the next :meth:`submit`. Never hangs: a job far over its time is
        an :class:`EngineError`.
        """


class Immediate:
    """
    A coder made from a synchronous function.

    :param function: takes data and size, returns the result
    """

    depth = 1

    def __init__(self, function: Callable[[Buffer, int], Buffer | None]) -> None:
        self._function = function
        self._done: Done | None = None

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """Execute the job."""
        try:
            self._done = Done(key, self._function(data, size))
        except (EngineError, CorruptSnapshotError) as error:
            self._done = Done(key, None, error)

    def reap(self) -> Done:
        """Return its outcome."""
        done, self._done = self._done, None
        if done is None:
            raise RuntimeError("no job is in flight")
        return done
