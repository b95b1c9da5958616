"""Batches of a snapshot's packets, and workers' reports of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from snapmig.container.index import page_counts
from snapmig.container.index_reader import IndexReader
from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.batch_size import LARGEST, batch_packets
from snapmig.pages import Mask
from snapmig.workers.tasks import Task

__all__ = (
    "EMPTY_BATCH_PACKETS",
    "FETCHED",
    "DamageTasks",
    "IndexBatches",
    "LoadTasks",
    "plan_tasks",
)

FETCHED = 8 << 20
"""
Bytes of RAM in a batch of a remote snapshot. Half of it with twice as many requests under way was
slower: connections that compete lose segments.
"""
EMPTY_BATCH_PACKETS = 4096
"""Most packets of a batch, however little is in them."""
_ERRORS_KEPT = 100
_PACKET_COST = 4
_EMPTY_COST = 1 / 4
"""
What a packet takes besides its pages, and what one without pages takes, in pages: one with a single
page is read, checked and written in 20 us, 4 us a page follow, and the record of an empty one is
checked in 1.
"""


class LoadTasks:
    """
    Hands out a snapshot's packets in batches of about the same duration.

    :param packets: the packets to load
    """

    def __init__(self, snapshot: SnapshotFile, packets: range) -> None:
        self._tasks = plan_tasks(snapshot.index, packets, remote=snapshot.is_remote)
        self._again: list[Task] = []
        self.replies: list[Any] = []
        self.waiting = False

    def next_for(self, _worker: int) -> Task | None:
        """Return the next batch."""
        return self._again.pop() if self._again else next(self._tasks, None)

    def finished(self, _worker: int, _task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Keep a reply unless it is empty."""
        if reply:
            self.replies.extend(reply)
        return []

    def lost(self, _worker: int, tasks: Sequence[Task]) -> None:
        """Hand out a dead worker's tasks again."""
        self._again += tasks


class DamageTasks(LoadTasks):
    """
    Hands out packets as its base does, and keeps the damaged ones.

    :ivar damaged: true for each damaged packet of the snapshot
    """

    def __init__(self, snapshot: SnapshotFile, packets: range) -> None:
        super().__init__(snapshot, packets)
        self.damaged: Mask = np.zeros(snapshot.geometry.packet_count, np.bool_)
        self._errors: list[SnapmigError] = []

    @property
    def errors(self) -> list[SnapmigError]:
        """Errors of the first damaged packets, in order."""
        return sorted(self._errors, key=lambda error: error.packet or 0)[:_ERRORS_KEPT]

    def finished(self, _worker: int, _task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Keep a batch's damage."""
        for damage in reply:
            self.damaged[damage.packets] = True
            self._errors += damage.errors
            if len(self._errors) > 2 * _ERRORS_KEPT:
                self._errors = self.errors
        return []


class IndexBatches:
    """
    Numbers of packets of a pass over a snapshot to save again, as :func:`plan_tasks` has them.

    :param packets: packets in it
    """

    def __init__(self, index: IndexReader, packets: int) -> None:
        self._tasks = plan_tasks(index, range(packets))
        self._packets = packets
        self._end = 0

    def __call__(self, left: int) -> int:
        """
        Return the number of packets of the next batch.

        :param left: packets not handed out yet, fewer at each call
        """
        first = self._packets - left
        while self._end <= first:
            task = next(self._tasks)
            self._end = task.first + task.count
        return self._end - first


def plan_tasks(index: IndexReader, packets: range, *, remote: bool = False) -> Iterator[Task]:
    """
    Yield batches of consecutive packets, by what they cost, smaller ones towards the end.

    :param remote: count each packet with pages as a full one: its bytes are prefetched, with a
        request of their own, and kept in memory
    """
    # Records are not checked yet here: a wrong one only makes a batch larger or smaller.
    size = index.packet_pages * PAGE_SIZE
    largest = FETCHED if remote else LARGEST
    full = index.packet_pages + _PACKET_COST
    for start, records in index.steps(packets):
        pages = page_counts(records)
        costs = np.where(pages > 0, full if remote else pages + _PACKET_COST, _EMPTY_COST)
        sums = np.cumsum(costs)
        at, end = 0, len(records)
        while at < end:
            share = full * batch_packets(packets.stop - start - at, size, largest)
            spent = sums[at - 1] if at else 0
            stop = int(np.searchsorted(sums, spent + share, side="right"))
            stop = min(max(stop, at + 1), at + EMPTY_BATCH_PACKETS, end)
            yield Task(0, start + at, stop - at)
            at = stop
