"""
Delay signals and cancellations while work must not be left half done.

This module does not install handlers; it only delays when they run. An exception raised by a
handler inside asyncio's loop is swallowed there or tears the connection, and one raised while a
guest is being resumed leaves the guest paused. A signal mask would not help: other threads, such as
those of numpy's libraries, would take the signals, and Python runs the handler in the main thread
all the same.

Other threads have no signals. They have a :class:`Cancellation`, raised at the very points where a
signal would be in the main thread.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ("Cancellation", "HeldSignals", "raise_if_cancelled", "remark", "remarked")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_thread = threading.local()


class Cancellation:
    """Ends the work of a thread by raising an exception there, once."""

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._raised = False
        self._held = 0

    @contextmanager
    def here(self) -> Iterator[None]:
        """Deliver it to this thread, inside the block."""
        _thread.cancellation = self
        try:
            yield
        finally:
            _thread.cancellation = None

    def cancel(self, error: BaseException) -> None:
        """Have an exception raised in the thread soon. The first one counts."""
        if self._error is None:
            self._error = error

    def hold(self) -> None:
        """Delay its delivery."""
        self._held += 1

    def release(self) -> None:
        """Allow its delivery again; raise it now if it came meanwhile."""
        self._held -= 1
        self.raise_if_cancelled()

    def raise_if_cancelled(self) -> None:
        """Raise the pending exception, unless already raised or held."""
        if not self._held and self._error is not None and not self._raised:
            self._raised = True
            raise self._error


def remark(error: object, words: str, *, alone: bool = False) -> None:
    """
    Add words about what is removed or kept to an interruption, once.

    :param error: what ended a block, if anything; failures, which are an ``Exception``, say
        themselves what happened
    :param alone: drop what was said before
    """
    if not isinstance(error, BaseException) or isinstance(error, Exception):
        return
    notes = getattr(error, "__notes__", [])
    if alone:
        notes.clear()
    if words not in notes:
        error.add_note(words)


@contextmanager
def remarked(words: str, *, alone: bool = False) -> Iterator[None]:
    """Add words to an interruption of the block, alone or with what was said inside."""
    try:
        yield
    except BaseException as error:
        remark(error, words, alone=alone)
        raise


def raise_if_cancelled() -> None:
    """Raise this thread's pending cancellation, if any; for loops that take long."""
    cancellation = _own_cancellation()
    if cancellation is not None:
        cancellation.raise_if_cancelled()


def _own_cancellation() -> Cancellation | None:
    found: Cancellation | None = getattr(_thread, "cancellation", None)
    return found


class HeldSignals:
    """
    Delays signal handlers inside a ``with`` block; the first signal is handled at its end.

    In other threads than the main one it delays the thread's cancellation instead.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._came: list[tuple[int, FrameType | None]] = []
        self._cancellation: Cancellation | None = None

    def __enter__(self) -> HeldSignals:
        self._hold()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._release()

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Let signals arrive inside this block."""
        self._release()
        try:
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            # Handlers run in the main thread only.
            self._cancellation = _own_cancellation()
            if self._cancellation is not None:
                self._cancellation.hold()
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._before[number] = handler
                signal.signal(number, self._note)

    def _release(self) -> None:
        cancellation, self._cancellation = self._cancellation, None
        if cancellation is not None:
            cancellation.release()
        for number in list(self._before):
            handler = self._before.pop(number)
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        if self._came:
            number, frame = self._came[0]
            self._came.clear()
            current = signal.getsignal(number)
            if callable(current):
                current(number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append((number, frame))
