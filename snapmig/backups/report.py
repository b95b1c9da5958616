"""
Messages of a backup command: results, warnings and errors, and their common exit code.

Each is passed on at once, so that nothing is lost if a run is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snapmig.errors import WARNINGS_EXIT_CODE
from snapmig.operations.failures import describe

__all__ = ("Failure", "Note", "Remark", "Report", "Warned")


@dataclass(frozen=True, slots=True)
class Note:
    """An ordinary event, for the curious."""

    message: str
    guest: str | None


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that takes longer than one expects, while it still may go as it should."""

    message: str
    guest: str | None


@dataclass(frozen=True, slots=True)
class Warned:
    """Something was skipped or a hook failed; everything else was done."""

    message: str
    guest: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, with the exit code of its kind."""

    message: str
    guest: str | None
    exit_code: int


class Report:
    """
    Pass events on and keep the exit code.

    :param show: called with each result, :class:`Note`, :class:`Remark`,
        :class:`Warned` and :class:`Failure`
    """

    def __init__(self, show: Callable[[Any], None]) -> None:
        self._show = show
        self._error_code = 0
        self.warnings = 0
        self.errors = 0

    @property
    def exit_code(self) -> int:
        """The first error's, else :data:`WARNINGS_EXIT_CODE` after a warning, else 0."""
        return self._error_code or (WARNINGS_EXIT_CODE if self.warnings else 0)

    def result(self, result: Any) -> None:
        """Pass on a result."""
        self._show(result)

    def note(self, message: str, guest: str | None = None) -> None:
        """Pass on an ordinary event."""
        self._show(Note(message, guest))

    def remark(self, message: str, guest: str | None = None) -> None:
        """Hand on what should be read now."""
        self._show(Remark(message, guest))

    def warn(self, message: str, guest: str | None = None) -> None:
        """Pass on a warning."""
        self.warnings += 1
        self._show(Warned(message, guest))

    def fail(self, error: Exception | str, guest: str | None = None, exit_code: int = 1) -> None:
        """Pass on an error, or its message and exit code."""
        code, message = (exit_code, error) if isinstance(error, str) else describe(error)
        self.errors += 1
        self._error_code = self._error_code or code
        self._show(Failure(message, guest, code))
