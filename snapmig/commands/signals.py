"""SIGINT, SIGTERM and SIGHUP as an exception, for an orderly clean-up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ("Interrupted", "interruptible")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the program to end. No ``except Exception`` catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.signal).name


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` on the first signal; later ones can't disturb the clean-up."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    interrupted = False

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # Blocked, not ignored: pending signals are dropped at the end of the process. Python
        # resets handlers on its way out, and complains of signals without one.
        nonlocal interrupted
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if not interrupted:
            interrupted = True
            raise Interrupted(number)

    for number in _SIGNALS:
        if before[number] != signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        if not interrupted:
            for number, handler in before.items():
                signal.signal(number, handler)
