"""
Counters that workers write and the parent reads, in shared memory, without a lock.

Each worker has a row of 64-bit cells that nobody else writes. A lock or a queue would stay held
for ever by a worker that is killed while it holds it; a cell stays what it was.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from snapmig.system.files import descriptor_path

__all__ = ("CELLS", "Cells", "Row", "open_row")

CELLS = 16
"""Cells in a row: two cache lines, so that no two workers write into the same one."""

Row = npt.NDArray[np.int64]


class Cells:
    """The rows of all workers, as the parent sees them."""

    def __init__(self, workers: int) -> None:
        self._fd = os.memfd_create("snapmig-cells", os.MFD_CLOEXEC)
        size = workers * CELLS * 8
        os.ftruncate(self._fd, size)
        self.rows = np.frombuffer(mmap.mmap(self._fd, size), np.int64).reshape(workers, CELLS)

    @property
    def path_for_workers(self) -> str:
        """A path by which workers open the cells."""
        return descriptor_path(self._fd)

    def total(self) -> Row:
        """Return the sum over all workers, cell by cell."""
        total: Row = self.rows.sum(axis=0)
        return total

    def close(self) -> None:
        """Close the file; rows that are still referred to stay mapped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_row(path: str, worker: int) -> Row:
    """Map one worker's row in its own process."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        cells = np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.int64)
    finally:
        os.close(fd)
    return cells[worker * CELLS : (worker + 1) * CELLS]
