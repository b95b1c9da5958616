"""Exhausted resources: processes, threads and memory, and the limits to name in the error."""

from __future__ import annotations

import errno
import resource
import threading
from contextlib import suppress
from pathlib import Path

from snapmig.errors import SnapmigError
from snapmig.units import format_size

__all__ = ("forbid_core_dumps", "out_of_memory", "start_failure", "start_thread")


def forbid_core_dumps() -> None:
    """
    Keep this process's memory, and that of processes it starts, out of core dumps.

    A limit of zero is enough for dumps to files; the filter holds for programs that dumps are piped
    into, too.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with suppress(OSError):  # no /proc
        Path("/proc/self/coredump_filter").write_text("0")


def start_thread(thread: threading.Thread) -> None:
    """
    Start a thread.

    :raises SnapmigError: no more threads can be had
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise start_failure("a thread") from error


def start_failure(what: str, error: OSError | None = None) -> SnapmigError:
    """
    Return the error for a process or a thread that can't be started.

    :param error: the cause; None if the limit on processes and threads is reached
    """
    if error is None or error.errno in (None, errno.EAGAIN):
        allowed = _limit(resource.RLIMIT_NPROC)
        number = "" if allowed is None else f" (ulimit -u is {allowed})"
        reason = f"there may be no more processes and threads{number}"
        if _limit(resource.RLIMIT_AS) is not None:  # a thread's stack needs memory
            reason += f", or {out_of_memory()}"
    elif error.errno == errno.ENOMEM:
        reason = out_of_memory()
    else:
        reason = error.strerror or str(error)
    return SnapmigError(f"{what} can't be started: {reason}")


def out_of_memory() -> str:
    """Return a message about exhausted memory."""
    allowed = _limit(resource.RLIMIT_AS)
    if allowed is None:
        return "there is not enough memory"
    return f"there is not enough memory, a process may have {format_size(allowed)} (ulimit -v)"


def _limit(kind: int) -> int | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft
