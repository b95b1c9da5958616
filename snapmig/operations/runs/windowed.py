"""
Tasks whose bytes come over a network: as many requested at once as makes the run fast.

Workers do their tasks in order. Were no more handed out than requested, a late one would keep the
others from their next requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from snapmig.container.reader import SnapshotFile
from snapmig.handlers.load_tasks import FETCHED
from snapmig.stores.object import AHEAD_BYTES
from snapmig.stores.window import FIRST, LEAST, Window
from snapmig.workers.tasks import Task, TaskSource

__all__ = ("WORKER_AHEAD", "Windowed")

WORKER_AHEAD = AHEAD_BYTES // FETCHED
"""Most batches that a worker has: they fit into what it may keep of fetched bytes."""
_MOST = 32
"""Requests of all workers together, unless there are so many workers that each has but two."""
_HANDED = 2
"""Batches that are handed out for each request under way: half of them have come, or wait."""


class Windowed:
    """
    Hands out the tasks of another source, with a worker's share of the window as their argument.

    :param chain: the files that they read
    :param jobs: workers
    :param requests: returns the bytes that have arrived so far, 0 if nobody counts them, and the
        number of requests that took another attempt
    """

    def __init__(
        self,
        tasks: TaskSource,
        chain: Sequence[SnapshotFile],
        jobs: int,
        requests: Callable[[], tuple[int, int]],
    ) -> None:
        self._tasks = tasks
        self._jobs = jobs
        self._files = [file for file in chain if file.is_remote]
        self._requests = requests
        self._known = 0
        most = min(WORKER_AHEAD * jobs, max(_MOST, 2 * jobs))
        self.window = Window(max(FIRST, 2 * jobs), max(LEAST, 2 * jobs), most)
        self._lengths: dict[int, int] = {}

    @property
    def waiting(self) -> bool:
        """True if there will be tasks later although nobody has one now."""
        return self._tasks.waiting

    def next_for(self, worker: int) -> Task | None:
        """Return the next task unless enough are handed out; if none is, always."""
        requests = self._share(worker)
        enough = not requests or len(self._lengths) >= _HANDED * self.window.size
        if enough and self._lengths:  # without any the job would be over
            return None
        task = self._tasks.next_for(worker)
        if task is not None and (length := self._length(task)):
            self._lengths[task.first] = length
        return task and task._replace(argument=max(1, requests))

    def _share(self, worker: int) -> int:
        # Of the window: fewer than one for each worker leave some without.
        each, more = divmod(self.window.size, self._jobs)
        return each + (worker % self._jobs < more)

    def finished(self, worker: int, task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Take a reply."""
        length = self._lengths.pop(task.first, 0)
        if length:
            known = self._known
            arrived, self._known = self._requests()
            self.window.done(length, repeated=self._known > known, arrived=arrived)
        return self._tasks.finished(worker, task, reply)

    def lost(self, worker: int, tasks: Sequence[Task]) -> None:
        """Note the death of a worker."""
        for task in tasks:
            self._lengths.pop(task.first, None)
        self._tasks.lost(worker, tasks)

    def _length(self, task: Task) -> int:
        # Stored bytes of these packets in all files: what has to come, and some more in a chain.
        return sum(
            int(records["stored_size"].sum())
            for file in self._files
            for _, records in file.index.steps(task.packets)
        )
