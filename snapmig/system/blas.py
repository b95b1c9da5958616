"""numpy's linear algebra, which nothing here uses, without the threads that it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("without_blas_threads",)

_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def without_blas_threads() -> Iterator[None]:
    """
    Have numpy start no threads where it is imported in this block.

    A thread for each processor takes a fifth of a start, and where no more threads may be had the
    process ends. Programs that are started later see no trace of it.
    """
    if _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_THREADS]
