"""Hand out packets to a guest that runs already: what it asks for first, and all others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from snapmig.container.reader import SnapshotFile
from snapmig.errors import WorkerDiedError
from snapmig.handlers.load import plan_tasks
from snapmig.handlers.serve import DATA, ZEROS
from snapmig.pages import Mask, runs
from snapmig.workers.tasks import TASKS_AHEAD, Task

__all__ = ("ServeTasks",)

_QUIET_S = 0.05
"""Seconds without a request after which workers get others ahead, so that none waits for us."""


class _Sections:
    # Tasks with a buffer each: given out while there are some, and free again once sent.
    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self.asked: deque[tuple[int, int]] = deque()
        self.others: deque[tuple[int, int]] = deque()

    @property
    def available(self) -> bool:
        return bool(self._free)

    def take(self) -> int:
        return self._free.pop()

    def free(self, buffer: int) -> None:
        self._free.append(buffer)

    def ready(self) -> tuple[int, int] | None:
        # The next section to be sent, those asked for first.
        waiting = self.asked or self.others
        return waiting.popleft() if waiting else None


class ServeTasks:
    """
    Hands out the packets that the guest asks for, and meanwhile all others, each one once.

    :param buffers: number of buffers for sections
    :ivar filling: hand out others, too
    :ivar order: packets in the order in which the guest first asked for them
    """

    def __init__(self, snapshot: SnapshotFile, buffers: int) -> None:
        geometry = snapshot.geometry
        self._given = np.zeros(geometry.packet_count, np.uint8)
        self._fill = self._others(snapshot)
        self._filled = False
        self._queue: deque[int] = deque()
        self._busy: dict[int, int] = {}
        self._sections = _Sections(buffers)
        self._unsent = 0
        self._asked_at = time.monotonic()
        self.filling = True
        self.order: list[int] = []

    @property
    def waiting(self) -> bool:
        """True until everything has been sent."""
        return bool(self._unsent or self._queue or (self.filling and not self._filled))

    def ask(self, packet: int) -> None:
        """Give a packet precedence, unless its pages and zero pages are under way already."""
        if self._given[packet] & ZEROS:
            return
        self._given[packet] |= ZEROS
        self._asked_at = time.monotonic()
        self._queue.append(packet)
        self.order.append(packet)

    def missing(self, packets: range) -> Mask:
        """Return a mask of the packets that nobody has been given yet."""
        return np.asarray(self._given[packets.start : packets.stop] == 0)

    def next_for(self, worker: int) -> Task | None:
        """Return a packet that was asked for, or another one for a worker without work."""
        if not self._sections.available:
            return None
        if self._queue:
            packet = self._queue.popleft()
            wanted = DATA + ZEROS - int(self._given[packet] & DATA)
            self._given[packet] |= DATA
            return self._give(worker, Task(wanted, packet, 1))
        if self._busy.get(worker, 0) >= self._most or not self.filling:
            return None
        task = next(self._fill, None)
        self._filled = task is None
        return None if task is None else self._give(worker, task)

    def finished(self, worker: int, task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Take a section, to be sent."""
        self._busy[worker] -= 1
        if reply:
            urgent = task.kind & ZEROS
            waiting = self._sections.asked if urgent else self._sections.others
            waiting.append((task.argument, reply))
        else:
            self.sent(task.argument)
        return []

    def ready(self) -> tuple[int, int] | None:
        """Return the next section to be sent, as buffer and length, None if there is none."""
        return self._sections.ready()

    def sent(self, buffer: int) -> None:
        """Use a buffer again."""
        self._sections.free(buffer)
        self._unsent -= 1

    def lost(self, worker: int, _tasks: Sequence[Task]) -> None:
        """
        Note the death of a worker.

        :raises WorkerDiedError: always
        """
        raise WorkerDiedError(f"worker {worker} died, and with it what it was to send")

    @property
    def _most(self) -> int:
        # Of other packets for a worker: one while the guest asks, so that an answer waits for one.
        return 1 if time.monotonic() - self._asked_at < _QUIET_S else TASKS_AHEAD

    def _give(self, worker: int, task: Task) -> Task:
        self._busy[worker] = self._busy.get(worker, 0) + 1
        self._unsent += 1
        return task._replace(argument=self._sections.take())

    def _others(self, snapshot: SnapshotFile) -> Iterator[Task]:
        # Packets nobody has asked for until their turn comes; those of zeros only to be counted.
        packets = range(snapshot.geometry.packet_count)
        for task in plan_tasks(snapshot.index, packets, lambda _left: 1):
            at = task.first
            while found := runs(self.missing(range(at, task.packets.stop))):
                at, count = at + found[0][0], found[0][1]
                self._given[at : at + count] |= DATA
                yield Task(DATA, at, count)
                at += count
