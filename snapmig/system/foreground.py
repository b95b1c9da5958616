"""A program that has our terminal, and that ends with us."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from types import TracebackType

from snapmig.system.programs import ProgramError
from snapmig.system.signals import HeldSignals

__all__ = ("Foreground",)

_GRACE_S = 5.0
"""Seconds left to it for cleaning up, between SIGTERM and SIGKILL."""


class Foreground:
    """
    A program with our standard streams and in our process group; a context manager.

    An error in the ``with`` block, or a signal to us, ends the program; else the block's end leaves
    it alone.

    :raises ProgramError: it can't be started
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        with HeldSignals():  # a signal before we know its pid would leave it running
            try:
                self._process = subprocess.Popen(arguments)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "its words have a zero byte"
                raise ProgramError(f"{arguments[0]} can't be started: {reason}") from error

    def ended(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for its end, at most so long, and return the same."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def __enter__(self) -> Foreground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if kind is None or self.ended() is not None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
            return
        self._process.kill()
        self._process.wait()
