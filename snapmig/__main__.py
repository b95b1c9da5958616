"""
The program: ``snapmig``, and ``python -m snapmig``.

A small save takes tenths of a second, so the interpreter's own start and end count.
"""

from __future__ import annotations

import atexit
import gc
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
        with without_blas_threads(), _without_dill(), _without_collections():
            from snapmig.commands import ALONE, load, main  # noqa: PLC0415

            verb = sys.argv[1] if sys.argv[1:] else None
            load(verb)
            if verb not in ALONE:  # some of the others import it and numpy when they run
                import numpy as np  # noqa: F401, PLC0415
    except Exception as error:  # noqa: BLE001 - numpy ends in any, where memory is short
        # An incomplete installation, or too little memory for the process.
        sys.exit(f"snapmig: can't start: {_first_cause(error)}")
    _leave(main())


def _first_cause(error: BaseException) -> str:
    # numpy's long message repeats its first line's fact.
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return str(error) if isinstance(error, ImportError) else repr(error)


@contextmanager
def _without_collections() -> Iterator[None]:
    # Collections of garbage take 15 ms of a start's 200 and find none. What was imported stays, so
    # later ones need not look at it either, and workers share its memory for longer.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _without_dill() -> Iterator[None]:
    # Without dill, multiprocess pickles as usual. That is enough for our workers: their arguments
    # are made here. Programs with the library may need more, and have it.
    if "dill" in sys.modules:
        yield
        return
    sys.modules["dill"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["dill"]


def _leave(code: int) -> NoReturn:
    # The interpreter's own end destroys each module and object, some 50 ms, though the kernel frees
    # everything anyway. Functions registered for the exit are called; if a library's threads may
    # still be busy, the interpreter ends as usual.
    others = set(threading.enumerate()) - {threading.main_thread()}
    if not all(thread.daemon for thread in others):
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # main has reported failed writes
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
