"""One job in the parent: its handler's plan, its tasks, its counters, its outcome."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable

from snapmig.system.files import descriptor_path, pwrite_all
from snapmig.workers.counters import JobCounters, SharedCounters
from snapmig.workers.tasks import TASKS_AHEAD, Handler, TaskSource

__all__ = ("Describe", "Job")

Describe = Callable[[int], str]
"""Returns a likely explanation for a worker's death by a signal, or an empty text."""


class Job:
    """
    A job in a slot.

    :ivar waiting: tasks that workers have
    :ivar notes: remarks of workers for the user, each sentence once, in the order of arrival
    :ivar ended: set when a run is over, successful or not
    """

    def __init__(self, slot: int, counters: SharedCounters, describe: Describe) -> None:
        self.slot = slot
        self.counters = JobCounters(counters, slot)
        self.describe = describe
        self.source: TaskSource | None = None
        self.failure: BaseException | None = None
        self.limited = True
        self.ahead = TASKS_AHEAD
        self.waiting = 0
        self.notes: dict[str, None] = {}
        self.ended = threading.Event()
        self._plan = -1
        self._written: dict[int, int] = {}

    def store(self, make_handler: Callable[[], Handler]) -> None:
        """Write the handler's factory to a file that workers can open."""
        self._plan = os.memfd_create("snapmig-job", os.MFD_CLOEXEC)
        pwrite_all(self._plan, pickle.dumps(make_handler), 0)

    @property
    def plan_path(self) -> bytes:
        """Path for workers to read the handler's factory."""
        return os.fsencode(descriptor_path(self._plan))

    @property
    def running(self) -> bool:
        """True while tasks are handed out."""
        return self.source is not None

    def begin(self, source: TaskSource, *, limited: bool, ahead: int) -> None:
        """Start a run."""
        self.ended.clear()
        self.limited = limited
        self.ahead = ahead
        self.source = source

    def end(self, failure: BaseException | None = None) -> None:
        """End the run unless it has ended. The first cause counts."""
        if self.source is not None:
            self.source = None
            self.failure = failure
            self.ended.set()

    def raise_failure(self) -> None:
        """Raise the failure of a run that has ended, if it has one, and forget it."""
        failure, self.failure = self.failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            # Its traceback has this frame: together they would keep all that the run had.
            del failure

    def newly_written(self, worker: int, counter: int) -> int:
        """Return the bytes that a worker has written since the last call."""
        now = self.counters.of(worker, counter)
        before = self._written.get(worker, 0)
        self._written[worker] = now
        return now - before

    def retire(self, worker: int) -> None:
        """Keep the counts of a dead worker."""
        self.counters.retire(worker)
        self._written.pop(worker, None)

    def close(self) -> None:
        """Release slot and plan once no worker has a task of this job."""
        self.counters.keep()
        if self._plan >= 0:
            os.close(self._plan)
            self._plan = -1
