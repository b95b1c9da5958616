"""
Errors that snapmig raises on purpose, each with its exit code.

Every class takes its message first and its context by keywords with defaults, so that an error
raised in a worker process arrives in the parent with everything it said.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = (
    "CancelledError",
    "CorruptSnapshotError",
    "DestinationExistsError",
    "ImageChangedError",
    "NoSpaceError",
    "SnapmigError",
    "StoreError",
    "UnsupportedError",
    "UsageError",
    "WorkerDiedError",
)

WARNINGS_EXIT_CODE = 6
"""Of what was done, except for something that the user must hear of."""


class SnapmigError(Exception):
    """
    Something failed, and the message says where, what was found and what was expected.

    :param message: the condition, without a capital letter or a full stop
    :param path: the file it is about
    :param packet: the packet's number in the snapshot
    :param offset: the byte offset in the file
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        packet: int | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)  # args == (message,): what pickling calls the class with
        self.path = path
        self.packet = packet
        self.offset = offset

    @property
    def message(self) -> str:
        """The condition alone, without the place."""
        return str(self.args[0])

    def __str__(self) -> str:
        where = [] if self.path is None else [self.path]
        if self.packet is not None:
            where.append(f"packet {self.packet}")
        if self.offset is not None:
            where.append(f"offset {self.offset:#x}")
        return ": ".join([*where, self.message])


class UsageError(SnapmigError):
    """An argument or a setting makes no sense."""

    exit_code = 2


class CorruptSnapshotError(SnapmigError):
    """A snapshot's bytes are not what its own checksums and rules say."""

    exit_code = 3


class UnsupportedError(SnapmigError):
    """A snapshot needs a version or a feature that this reader does not have."""

    exit_code = 4


class WorkerDiedError(SnapmigError):
    """A worker process ended without saying why."""

    exit_code = 5


class NoSpaceError(SnapmigError):
    """The destination's filesystem is full, or too small for what must be written."""


class CancelledError(SnapmigError):
    """The job was ended because of something else: a signal, or another job that failed."""


class DestinationExistsError(SnapmigError):
    """The destination exists, and overwriting it was not asked for."""


class ImageChangedError(SnapmigError):
    """The guest RAM image changed while it was being read."""


class StoreError(SnapmigError):
    """Object storage can't be reached, or refused something; says nothing of a snapshot's bytes."""
