"""Time that a thread uses, or could have used, a processor."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from time import thread_time_ns

__all__ = ("ThreadTime",)


class ThreadTime:
    """
    The time of the thread that makes it: on a processor, or in the queue for one.

    The rest it sleeps, which in a write means that it waits for a device or a server. A busy host
    would look like a slow device without the time in the queue; kernels without that count have it
    as zero.
    """

    def __init__(self) -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd).atexit = False  # with the worker's handler

    def ns(self) -> int:
        """Return nanoseconds since some moment."""
        queued = 0 if self._fd < 0 else int(os.pread(self._fd, 64, 0).split()[1])
        return thread_time_ns() + queued
