"""
The program: ``snapmig``, and ``python -m snapmig``.

A save of little is over in tenths of a second, so the interpreter's own start and end count.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def run() -> NoReturn:
    """Run the program and end the process with its exit code."""
    with _without_blas_threads(), _without_dill():
        import multiprocess  # noqa: F401, PLC0415
        import numpy as np  # noqa: F401, PLC0415
    from snapmig.commands import main  # noqa: PLC0415

    _leave(main())


@contextmanager
def _without_blas_threads() -> Iterator[None]:
    # numpy's linear algebra starts a thread for each processor when it is imported, which takes a
    # fifth of a start, and nothing here multiplies matrices. Programs that we start see no trace.
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]


@contextmanager
def _without_dill() -> Iterator[None]:
    # multiprocess can do without it and then pickles as usual, which is all that workers need: what
    # they are told is made here. Programs that use the library may need more, and have it.
    if "dill" in sys.modules:
        yield
        return
    sys.modules["dill"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["dill"]


def _leave(code: int) -> NoReturn:
    # The interpreter's own end takes each module and object apart, some 50 ms, and the kernel then
    # frees what is left anyway. What asked to be called at the end is called; where a library's
    # threads may still be at something, the end is the usual one.
    others = set(threading.enumerate()) - {threading.main_thread()}
    if not all(thread.daemon for thread in others):
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # main has told of what could not be written
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
