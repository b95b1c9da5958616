"""Import numpy without the threads of its linear algebra library, which nothing here uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("without_blas_threads",)

_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def without_blas_threads() -> Iterator[None]:
    """
    Keep numpy from starting threads if it is imported inside this block.

    One thread per processor costs a fifth of the start-up time, and where no more threads can be
    had the process ends. Programs started later see no trace of this.
    """
    if _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_THREADS]
