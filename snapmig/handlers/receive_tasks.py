"""
Tasks of a receive: packets from channels, barriers between them, and merges of staged pages.

The k-th barrier is passed when all channels and the main connection have reached theirs: only then
may anybody apply what came after it. Pages are merged while no worker receives, and as late as
possible: the guest stands still during the last round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from snapmig.errors import WorkerDiedError
from snapmig.geometry import Geometry
from snapmig.handlers.receive import Merge, Outcome, ReceiveKind
from snapmig.handlers.staging import MOST_ROUNDS, Numbers, PacketNumbers, StagedPages, Waiting
from snapmig.migration.main_channel import MainChannel
from snapmig.migration.wire import MigrationError
from snapmig.pages import Bytes, Mask
from snapmig.workers.tasks import Task

__all__ = ("ParentPages", "ReceiveTasks", "empty_tasks")

_EMPTY_BATCH_PACKETS = 4096
_RECEIVED_AT_ONCE = 32
"""Packets of a channel per task: 16 MiB of RAM."""
_MERGED_AT_ONCE = 8
"""Packets with staged pages per task."""
_RUN = 1 << 10
"""Entries that the parent's table must have room for to take more: a run of records."""


class ParentPages:
    """
    Pages of the main connection beside channels, staged by the parent process.

    :param path: of their table
    :param waiting: marks of packets with staged pages
    :param round: returns the number of the present round
    :param stored: returns a mask of the packets with pages in the snapshot, among consecutive ones
    :ivar frozen: take no pages, because workers read the table
    """

    def __init__(
        self,
        path: str,
        waiting: Waiting,
        geometry: Geometry,
        round: Callable[[], int],  # noqa: A002 - QEMU's word
        stored: Callable[[int, int], Mask],
    ) -> None:
        self._table = StagedPages(path)
        self._packets = PacketNumbers(geometry)
        self._waiting = waiting
        self._round = round
        self._stored = stored
        self.frozen = False

    @property
    def full(self) -> bool:
        """True if no more pages can be taken now."""
        return self.frozen or self._table.room < _RUN

    def hurry(self) -> None:
        """Tell all workers that the guest stands still."""
        self._waiting.hurry = True

    def take_pages(self, first: int, pages: Bytes) -> None:
        """Stage consecutive pages, as ``(n, 4096)``."""
        numbers = np.arange(first, first + len(pages))
        self._waiting.marks[self._packets.of(numbers)] = 1
        self._table.round = self._round()
        self._table.add(numbers, pages)

    def take_zeros(self, first: int, count: int) -> None:
        """Stage zero pages of packets with pages already; all pages of others are zero."""
        numbers = np.arange(first, first + count)
        packets = self._packets.of(numbers)
        start, stop = int(packets[0]), int(packets[-1]) + 1
        known = (self._waiting.marks[start:stop] > 0) | self._stored(start, stop - start)
        own = known[packets - start]
        self._waiting.marks[packets[own]] = 1
        self._table.round = self._round()
        self._table.add_zeros(numbers[own])

    def clear(self) -> None:
        """Empty the table, and forget all packets that waited."""
        self._table.clear()
        self._waiting.marks[:] = 0

    @property
    def count(self) -> int:
        """Number of pages in the table."""
        return self._table.count

    def numbers(self) -> Numbers:
        """Return the numbers of the pages in the table."""
        return self._table.page_numbers()


class ReceiveTasks:
    """
    Hands out what there is to receive and to merge.

    :param channels: descriptors of connections by channel number, given to the workers
    :param workers: their number; channel ``k`` belongs to worker ``k`` modulo that
    :param tables: paths of the staged pages: one for each channel, then the parent's
    :param codec: called for the codec of each batch
    :ivar ahead: tasks in a worker's pipe
    :ivar rounds: barriers passed so far
    :ivar received: everything has come, and what is left to do needs no guest
    :ivar told: set by whoever lets the guest go when everything has come; nothing is done before
    """

    ahead = 1

    def __init__(
        self,
        geometry: Geometry,
        main: MainChannel,
        channels: Sequence[int],
        workers: int,
        tables: Sequence[str],
        parent: ParentPages,
        codec: Callable[[], int],
    ) -> None:
        self._main = main
        self._parent = parent
        self._codec = codec
        self._workers = workers
        self._packets = PacketNumbers(geometry)
        self._staged = [StagedPages(path) for path in tables[: len(channels)]]
        self._new = dict(enumerate(channels))
        self._at_barrier = [False] * len(channels)
        self._ended = [False] * len(channels)
        self._idle = set(range(len(channels)))
        self._queue = deque(empty_tasks(geometry))
        self._in_flight = 0
        self._after: Callable[[], None] | None = None
        self._full = False
        self._generation = 0
        self._done = False
        self.rounds = 0
        self.received = False
        self.told = False

    def hurry(self) -> None:
        """Have all that comes from now on staged: the guest stands still."""
        self._parent.hurry()

    @property
    def waiting(self) -> bool:
        """True until all has been received."""
        self._turn()
        return not self._done

    def next_for(self, worker: int) -> Task | None:
        """Return a merge, or packets to receive from one of the worker's channels."""
        self._turn()
        if self._queue:
            self._in_flight += 1
            return self._queue.popleft()
        if self._in_flight or self._full or self._parent.full or self._is_complete:
            return None
        for channel in range(worker % self._workers, len(self._at_barrier), self._workers):
            rests = self._at_barrier[channel] or self._ended[channel]
            if channel in self._idle and not rests:
                self._idle.remove(channel)
                fd = self._new.pop(channel, -1)
                kind = ReceiveKind.RECEIVE
                return Task(kind, channel, _RECEIVED_AT_ONCE, self._codec(), fd)
        return None

    def finished(self, _worker: int, task: Task, reply: int) -> list[tuple[int, Task]]:
        """Take an outcome."""
        if task.kind == ReceiveKind.RECEIVE:
            self._idle.add(task.first)
            self._at_barrier[task.first] = reply == Outcome.SYNC
            self._ended[task.first] = reply == Outcome.ENDED
            self._full = self._full or reply == Outcome.FULL
        else:
            self._in_flight -= 1
        return []

    def lost(self, worker: int, _tasks: Sequence[Task]) -> None:
        """
        Note the death of a worker: its channels are lost with it.

        :raises WorkerDiedError: always
        """
        raise WorkerDiedError(f"worker {worker} died, and with it what it was receiving")

    def _turn(self) -> None:
        # One step at a time, when nobody is at work on the one before.
        self._check_ends()
        if self._queue or self._in_flight or self._done:
            return
        if self._after is not None:
            after, self._after = self._after, None
            after()
        if len(self._idle) == len(self._at_barrier):
            self._turn_channels()

    def _check_ends(self) -> None:
        # Without a return path a source closes its channels as soon as all is sent.
        if self._main.marks > self.rounds:
            for number, ended in enumerate(self._ended):
                if ended and not self._at_barrier[number]:
                    raise MigrationError(f"channel {number}: connection ended too early")

    def _turn_channels(self) -> None:
        self.received = self._is_complete
        if self.received and not self.told:
            return
        # Numbers of rounds begin anew with the next barrier: no page may wait from before.
        last = all(self._at_barrier) and (self.rounds + 1) % MOST_ROUNDS == 0
        if self._full or self._parent.full or ((last or self.received) and self._has_staged):
            self._after = self._clear
        elif all(self._at_barrier) and self._main.marks > self.rounds:
            self._pass_barrier()
        elif self.received:
            self._done = True
        if self._after is not None:
            self._parent.frozen = True
            numbers = [table.page_numbers() for table in self._staged]
            numbers.append(self._parent.numbers())
            self._merge(0, len(self._staged) + 1, np.concatenate(numbers))
            if not self._queue:
                self._turn()

    @property
    def _has_staged(self) -> bool:
        return self._parent.count > 0 or any(table.count for table in self._staged)

    @property
    def _is_complete(self) -> bool:
        # QEMU 9.1 and 9.2 send another barrier after the last mark, and nothing behind it.
        return self._main.ended and self.rounds == self._main.marks

    def _merge(self, first: int, stop: int, numbers: Numbers) -> None:
        self._generation += 1
        packets = np.unique(self._packets.of(numbers))
        for at in range(0, len(packets), _MERGED_AT_ONCE):
            own = packets[at : at + _MERGED_AT_ONCE]
            argument = Merge(self._generation, (first, stop), self._codec()).pack()
            start, count = int(own[0]), int(own[-1] - own[0]) + 1
            self._queue.append(Task(ReceiveKind.MERGE, start, count, argument))

    def _clear(self) -> None:
        for table in self._staged:
            table.clear()
        self._parent.clear()
        self._parent.frozen = self._full = False

    def _pass_barrier(self) -> None:
        self._at_barrier = [False] * len(self._at_barrier)
        self.rounds += 1
        self._main.passed = self.rounds


def empty_tasks(geometry: Geometry) -> list[Task]:
    """Return the first tasks: records of all packets, as long as nothing has come."""
    count, most = geometry.packet_count, _EMPTY_BATCH_PACKETS
    return [
        Task(ReceiveKind.EMPTY, first, min(most, count - first)) for first in range(0, count, most)
    ]
