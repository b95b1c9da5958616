"""
Entry point of a worker of the fork server, before numpy is imported.

Its arguments come pickled, since unpickling them imports the modules of a worker.
"""

from __future__ import annotations

import pickle
from typing import Any

from snapmig.system.blas import without_blas_threads

__all__ = ("enter",)


def enter(pipe: Any, told: bytes) -> None:
    """
    Run a worker.

    :param told: pickled arguments of :func:`~snapmig.workers.worker.work` besides the pipe
    """
    with without_blas_threads():
        from snapmig.workers.worker import work  # noqa: PLC0415 - numpy comes with it

        plan, make_handler = pickle.loads(told)
    work(plan, pipe, make_handler)
