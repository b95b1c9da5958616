"""
Signals that wait while something must not be left half done.

Handlers are the program's own business; here their moment is. What a handler raises inside
asyncio's loop is swallowed there or tears the connection, and what it raises while a guest is let
go leaves that standing. A mask of signals would not do: other threads, such as those of numpy's
libraries, would take them, and Python runs the handler in the main thread all the same.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ("HeldSignals",)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HeldSignals:
    """Keeps signals from their handlers inside a ``with`` block; the first arrives at its end."""

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._came: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> HeldSignals:
        self._hold()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._release()

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Let signals arrive inside."""
        self._release()
        try:
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # handlers run in the main thread only
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._before[number] = handler
                signal.signal(number, self._note)

    def _release(self) -> None:
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
