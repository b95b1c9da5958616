"""
Counters in shared memory, written by workers and read by the parent without a lock.

Each worker has a row of 64-bit counters per job, and is the only writer of its rows. A killed
worker would hold a lock or a queue for ever; a counter just keeps its last value.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from snapmig.system.files import descriptor_path

__all__ = ("COUNTERS", "JobCounters", "Row", "SharedCounters", "open_row")

COUNTERS = 72
"""Counters in a row: nine cache lines, so that no two workers write into the same one."""

Row = npt.NDArray[np.int64]


class SharedCounters:
    """
    The rows of all workers, as the parent sees them.

    :param slots: number of jobs at a time; the rows of a worker follow each other
    """

    def __init__(self, workers: int, slots: int = 1) -> None:
        self._fd = os.memfd_create("snapmig-counters", os.MFD_CLOEXEC)
        size = workers * slots * COUNTERS * 8
        os.ftruncate(self._fd, size)
        self.slots = slots
        self.rows = np.frombuffer(mmap.mmap(self._fd, size), np.int64).reshape(-1, COUNTERS)

    @property
    def path_for_workers(self) -> str:
        """Path for workers to open the counters."""
        return descriptor_path(self._fd)

    def close(self) -> None:
        """Close the file. Rows still in use stay mapped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class JobCounters:
    """The rows of one job, all zero at its start. A later job may reuse its slot."""

    def __init__(self, counters: SharedCounters, slot: int) -> None:
        self._rows = counters.rows[slot :: counters.slots]
        self._rows[:] = 0
        self._past: Row = np.zeros(COUNTERS, np.int64)

    def total(self) -> Row:
        """Return the sum over all workers, counter by counter."""
        total: Row = self._rows.sum(axis=0) + self._past
        return total

    def of(self, worker: int, counter: int) -> int:
        """Return the value of one worker's counter."""
        return int(self._rows[worker, counter])

    def least(self, counter: int) -> int:
        """Return the lowest value of a counter, apart from 0, among workers that still live."""
        found = self._rows[:, counter]
        return int(found[found != 0].min(initial=np.iinfo(np.int64).max)) if found.any() else 0

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
        counters = np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.int64)
    finally:
        os.close(fd)
    return counters[number * COUNTERS : (number + 1) * COUNTERS]
