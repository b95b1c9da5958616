"""Workers that end as coverage needs it."""

from __future__ import annotations

import os
import socket
import time

from snapmig.workers.processes import WorkerProcesses

_LEAVE_S = 2.0
"""After that a worker is killed, as without coverage: it may be busy, or stopped by a test."""


def let_workers_leave() -> None:
    """
    Have the end of a pool end its pipes first, and wait for its workers.

    A worker whose pipe ends leaves as any process does, and coverage writes what it has counted.
    """
    kill = WorkerProcesses.end

    def end(processes: WorkerProcesses) -> None:
        last = time.monotonic() + _LEAVE_S
        for worker in processes.workers.values():
            # Not closed here, for the pool still watches it.
            with socket.socket(fileno=os.dup(worker.pipe.fileno())) as pipe:
                pipe.shutdown(socket.SHUT_WR)
        for worker in processes.workers.values():
            worker.process.join(max(0.0, last - time.monotonic()))
        kill(processes)

    WorkerProcesses.end = end
