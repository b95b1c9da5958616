"""
Counters in shared memory, written by workers and read by the parent without a lock.

Each worker has a row of 64-bit cells per job, and is the only writer of its rows. A killed worker
would hold a lock or a queue for ever; a cell just keeps its last value.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from snapmig.system.files import descriptor_path

__all__ = ("CELLS", "JobCells", "Row", "SharedCounters", "open_row")

CELLS = 24
"""SharedCounters in a row: three cache lines, so that no two workers write into the same one."""

Row = npt.NDArray[np.int64]


class SharedCounters:
    """
    The rows of all workers, as the parent sees them.

    :param slots: number of jobs at a time; the rows of a worker follow each other
    """

    def __init__(self, workers: int, slots: int = 1) -> None:
        self._fd = os.memfd_create("snapmig-cells", os.MFD_CLOEXEC)
        size = workers * slots * CELLS * 8
        os.ftruncate(self._fd, size)
        self.slots = slots
        self.rows = np.frombuffer(mmap.mmap(self._fd, size), np.int64).reshape(-1, CELLS)

    @property
    def path_for_workers(self) -> str:
        """Path for workers to open the cells."""
        return descriptor_path(self._fd)

    def close(self) -> None:
        """Close the file. Rows still in use stay mapped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JobCells:
    """The rows of one job, all zero at its start. A later job may reuse its slot."""

    def __init__(self, cells: SharedCounters, slot: int) -> None:
        self._rows = cells.rows[slot :: cells.slots]
        self._rows[:] = 0
        self._past: Row = np.zeros(CELLS, np.int64)

    def total(self) -> Row:
        """Return the sum over all workers, cell by cell."""
        total: Row = self._rows.sum(axis=0) + self._past
        return total

    def of(self, worker: int, cell: int) -> int:
        """Return the value of one worker's cell."""
        return int(self._rows[worker, cell])

    def retire(self, worker: int) -> None:
        """Keep the counts of a dead worker, and clear its row for the replacement."""
        self._past = self._past + self._rows[worker]
        self._rows[worker] = 0

    def keep(self) -> None:
        """Keep the sum, and free the rows for another job."""
        self._past = self.total()
        self._rows = self._rows[:0]


def open_row(path: str, number: int) -> Row:
    """Map the row of one worker for one job, in the worker's own process."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        cells = np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.int64)
    finally:
        os.close(fd)
    return cells[number * CELLS : (number + 1) * CELLS]
