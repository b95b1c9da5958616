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

from snapmig.system.blas import without_blas_threads


def run() -> NoReturn:
    """Run the program and end the process with its exit code."""
    try:
        with without_blas_threads(), _without_dill():
            import multiprocess  # noqa: F401, PLC0415
            import numpy as np  # noqa: F401, PLC0415
        from snapmig.commands import main  # noqa: PLC0415
    except Exception as error:  # noqa: BLE001 - numpy ends in any, where memory is short
        # An installation that is not whole, or a process that may have too little memory.
        sys.exit(f"snapmig: can't start: {_first_cause(error)}")
    _leave(main())


def _first_cause(error: BaseException) -> str:
    # numpy says in many lines what follows from the first one.
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return str(error) if isinstance(error, ImportError) else repr(error)


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
