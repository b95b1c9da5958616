"""Hand out packets to a guest that runs already: what it asks for first, and all others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, starmap
from typing import Any

import numpy as np

from snapmig.container.index_reader import IndexReader
from snapmig.container.reader import SnapshotFile
from snapmig.errors import WorkerDiedError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.serve import DATA, FETCH, ZEROS
from snapmig.handlers.serve_order import Sections, Unit
from snapmig.pages import Mask, runs
from snapmig.workers.tasks import TASKS_AHEAD, Task

__all__ = ("ServeTasks",)

_GROUPS_AHEAD = 3
"""Groups of packets on their way to a worker: one is decoded meanwhile."""
_QUIET_S = 0.05
"""Seconds without a request after which workers get others ahead, so that none waits for us."""


class ServeTasks:
    """
    Hands out the packets that the guest asks for, and meanwhile all others, each one once.

    :param page_sizes: of the destination's memory, for each RAM block; a huge page is asked for,
        and goes out, as a whole
    :param buffers: number of buffers for sections
    :ivar filling: hand out others, too
    :ivar order: packets in the order in which the guest first asked for them
    """

    def __init__(self, snapshot: SnapshotFile, page_sizes: Sequence[int], buffers: int) -> None:
        self._geometry = snapshot.geometry
        self._page_sizes = page_sizes
        self._given = np.zeros(self._geometry.packet_count, np.uint8)
        self._fill = self._others(snapshot.index)
        self._filled = False
        self._queue: deque[range] = deque()
        self._groups: deque[list[range]] = deque()
        self._fetched: dict[int, deque[deque[range]]] = {}
        self._busy: dict[int, int] = {}
        self._sections = Sections(buffers)
        self._unit: Unit | None = None
        self._asked_at = time.monotonic()
        self.filling = True
        self.order: list[int] = []

    @property
    def waiting(self) -> bool:
        """True until everything has been sent."""
        more = self._queue or self._unit or self._groups or any(self._fetched.values())
        more = more or (self.filling and not self._filled)
        return bool(self._sections.unsent or more)

    @property
    def within(self) -> bool:
        """True while a huge page is partly sent."""
        return self._sections.within

    def ask(self, packet: int) -> None:
        """Give a packet precedence, unless its pages and zero pages are under way already."""
        packets = self._wanted(packet)
        if packets:
            self._asked_at = time.monotonic()
            self._queue.append(packets)

    def ask_together(self, groups: Iterable[Sequence[int]]) -> None:
        """Do the same for groups of packets, each of which one worker is to fetch at once."""
        for group in groups:
            found = [packets for packet in group if (packets := self._wanted(packet))]
            if found:
                self._groups.append(found)

    def _wanted(self, packet: int) -> range:
        if self._given[packet] & ZEROS:
            return range(0)
        packets = self._around(packet)
        self._given[packets.start : packets.stop] |= ZEROS
        self.order += packets
        return packets

    def missing(self, packets: range) -> Mask:
        """Return a mask of the packets that nobody has been given yet."""
        return np.asarray(self._given[packets.start : packets.stop] == 0)

    def next_for(self, worker: int) -> Task | None:
        """Return a packet that was asked for, or another one for a worker without work."""
        fetched = self._fetched.setdefault(worker, deque())
        if self._groups and len(fetched) < _GROUPS_AHEAD:
            group = self._groups.popleft()
            fetched.append(deque(group))
            return Task(FETCH, group[0].start, group[-1].stop - group[0].start)
        if not self._sections.available:
            return None
        unit = self._unit or self._next_unit(worker)
        if unit is None:
            return None
        self._busy[worker] = self._busy.get(worker, 0) + 1
        task = self._sections.give(unit)
        self._unit = None if unit.is_given else unit
        return task

    def finished(self, worker: int, task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Take a section, to be sent."""
        if task.kind != FETCH:
            self._busy[worker] -= 1
            self._sections.made(task.argument, reply)
        return []

    def ready(self) -> tuple[int, int] | None:
        """Return the next section to be sent, as buffer and length, None if there is none."""
        return self._sections.ready()

    def sent(self, buffer: int) -> None:
        """Use a buffer again."""
        self._sections.sent(buffer)

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

    def _next_unit(self, worker: int) -> Unit | None:
        if self._queue:
            return self._asked(self._queue.popleft())
        if fetched := self._fetched[worker]:
            packets = fetched[0].popleft()
            if not fetched[0]:
                fetched.popleft()
            return self._asked(packets)
        if self._busy.get(worker, 0) >= self._most or not self.filling:
            return None
        task = next(self._fill, None)
        self._filled = task is None
        return None if task is None else Unit(task, asked=False)

    def _asked(self, packets: range) -> Unit:
        wanted = DATA + ZEROS - int(self._given[packets.start] & DATA)
        self._given[packets.start : packets.stop] |= DATA
        return Unit(Task(wanted, packets.start, len(packets)), asked=True)

    def _around(self, packet: int) -> range:
        # The packets of the same huge page.
        block = self._geometry.place(packet).block
        packets, count = self._geometry.block_packets(block), self._at_once(block)
        first = packet - (packet - packets.start) % count
        return range(first, min(first + count, packets.stop))

    def _at_once(self, block: int) -> int:
        # Both are powers of two.
        return max(1, self._page_sizes[block] // self._geometry.packet_size)

    def _others(self, index: IndexReader) -> Iterator[Task]:
        # Packets nobody has asked for until their turn comes; those of zeros only to be counted.
        for block, page_size in enumerate(self._page_sizes):
            packets = self._geometry.block_packets(block)
            if page_size > PAGE_SIZE:
                yield from self._whole(index, packets, self._at_once(block))
            else:
                yield from self._single(index, packets)

    def _single(self, index: IndexReader, packets: range) -> Iterator[Task]:
        for part in _parts(index, packets):
            at = part.start
            while found := runs(self.missing(range(at, part.stop))):
                at, count = at + found[0][0], found[0][1]
                self._given[at : at + count] |= DATA
                yield Task(DATA, at, count)
                at += count

    def _whole(self, index: IndexReader, packets: range, count: int) -> Iterator[Task]:
        # Huge pages with all of their zero pages, and those of zeros.
        for first in packets[::count]:
            part = range(first, min(first + count, packets.stop))
            if not self._given[first]:
                is_zero = not any(records["kinds"].any() for _, records in index.steps(part))
                kind = DATA if is_zero else DATA + ZEROS
                self._given[part.start : part.stop] = kind
                yield Task(kind, first, len(part))


def _parts(index: IndexReader, packets: range) -> Iterator[range]:
    # Each packet with pages, and each run of packets without.
    for start, records in index.steps(packets):
        in_use = np.asarray(records["kinds"].any(axis=1))
        edges = np.flatnonzero(in_use[1:] | in_use[:-1]) + start + 1
        yield from starmap(range, pairwise([start, *edges.tolist(), start + len(records)]))
