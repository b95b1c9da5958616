"""A part of this process that goes on as a daemon, once it says that it is ready."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from snapmig.errors import SnapmigError, WorkerDiedError

__all__ = ("run_in_background", "spare_from_oom")

_STEP = 1 << 16


def run_in_background(work: Callable[[Callable[[], None]], None]) -> int:
    """
    Do some work in a new process, and return its pid as soon as it calls its argument.

    Until then it has our terminal and our group, and its errors are raised here. After that it has
    a session of its own, and no terminal. It keeps the files that are open here.

    :raises WorkerDiedError: it ended without an error
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_child(work, writer)
    os.close(writer)
    try:
        said = _read_all(reader)
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(reader)
    if said == b"":
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        raise WorkerDiedError(f"the server ended without an error, exit status {code}")
    error = pickle.loads(said)
    if error is None:
        return pid
    os.waitpid(pid, 0)
    raise error


def _read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, _STEP):
        pieces.append(piece)
    return b"".join(pieces)


def _run_child(work: Callable[[Callable[[], None]], None], writer: int) -> None:
    # Never returns: what is above us on the stack belongs to our parent.
    told = False

    def tell(error: BaseException | None) -> None:
        nonlocal told
        if not told:
            told = True
            try:
                raw = pickle.dumps(error)
            except Exception:  # noqa: BLE001 - whatever a foreign error has in it
                raw = pickle.dumps(SnapmigError(str(error) or type(error).__name__))
            with suppress(OSError):  # the parent is gone
                os.write(writer, raw)
            os.close(writer)

    def ready() -> None:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        os.close(nothing)
        tell(None)

    code = 1
    try:
        work(ready)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        tell(error)
    finally:
        os._exit(code)


def spare_from_oom() -> None:
    """Have the kernel end other processes before us when memory runs out, where we may say that."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900")
