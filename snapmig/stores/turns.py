"""A limit on threads doing the same at once, and changes of it meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

__all__ = ("Turns",)


class Turns:
    """
    A context for no more threads at once than a limit.

    :param limit: at first
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._busy = 0
        self._ended = False
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self._limit or self._ended)
            if self._ended:
                raise CancelledError
            self._busy += 1

    def __exit__(self, *_exc: object) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify()

    def limit(self, count: int) -> None:
        """Change the limit; threads inside stay."""
        with self._changed:
            self._limit = count
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody in any more: all get a :class:`~concurrent.futures.CancelledError`."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
