"""
Errors raised on purpose, each with its exit code.

Every class takes its message first and its context by keywords with defaults, so that an error
raised in a worker process reaches the parent with all its facts.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = (
    "CancelledError",
    "CorruptSnapshotError",
    "DestinationExistsError",
    "ImageChangedError",
    "KeyRequiredError",
    "NoSpaceError",
    "SnapmigError",
    "StoreError",
    "UnreadableError",
    "UnsupportedError",
    "UsageError",
    "WorkerDiedError",
)

WARNINGS_EXIT_CODE = 6
"""Exit code of a success with a warning."""


class SnapmigError(Exception):
    """
    A failure; the message gives place, found value and expected value.

    :param message: the condition, without a capital letter or a full stop
    :param path: the file concerned
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
    """A snapshot's bytes contradict its own checksums or rules."""

    exit_code = 3


class UnreadableError(SnapmigError):
    """A disk gave an error instead of a packet's bytes; implies nothing about other packets."""


class UnsupportedError(SnapmigError):
    """A snapshot needs a version or a feature unknown to this reader."""

    exit_code = 4


class WorkerDiedError(SnapmigError):
    """A worker process ended without reporting an error."""

    exit_code = 5


class NoSpaceError(SnapmigError):
    """The destination's filesystem is full, or too small."""


class CancelledError(SnapmigError):
    """The job was ended by a signal, or by the failure of another job."""


class DestinationExistsError(SnapmigError):
    """The destination exists, and overwriting it was not requested."""


class ImageChangedError(SnapmigError):
    """The guest RAM image changed while it was being read."""


class KeyRequiredError(SnapmigError):
    """A sealed snapshot needs a key, and none of those given fits."""


class StoreError(SnapmigError):
    """Object storage can't be reached, or refused a request; implies nothing about a snapshot."""
