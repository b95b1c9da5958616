"""Worker side of restore and verify: decode packets, then write the pages or discard them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from snapmig.chains.reader import Loaded, ReadPlan, open_chain
from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.container.index_reader import IndexReader
from snapmig.container.page_digests import wrong_page
from snapmig.container.reader import SnapshotFile
from snapmig.container.rests import wrong_rests
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.batch_size import LARGEST, SMALLEST, batch_packets
from snapmig.handlers.counters import Counter, encoding_counter
from snapmig.images.plan import Placer
from snapmig.images.target import TargetPlan, open_store
from snapmig.pages import Mask
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = (
    "LoadTasks",
    "RestoreHandler",
    "RestorePlan",
    "VerifyHandler",
    "plan_tasks",
)

EMPTY_BATCH_PACKETS = 4096
MAX_DAMAGE_SHOWN = 8
"""Damaged packets described per batch; the others are only counted."""


class RestorePlan(NamedTuple):
    """
    Parameters of a restore worker, picklable.

    :param read: the snapshot and its parents, the youngest first
    :param placer: writes packets to their places in the target
    """

    read: Sequence[ReadPlan]
    target: TargetPlan
    placer: Placer


class RestoreHandler:
    """Decodes packets and writes their pages into an image."""

    def __init__(self, plan: RestorePlan) -> None:
        self._plan = plan
        self._chain = open_chain(plan.read)
        self._geometry = self._chain.snapshot.geometry
        self._store = open_store(plan.target)

    def run(self, task: Task, row: Row) -> None:
        """Restore a batch of packets."""
        packets = self._chain.packets(task.first, task.count)
        if not packets:
            self._zero_all(task)
            _count_empty(row, self._geometry, task)
            return
        for found in self._chain.load_all(packets):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            place = self._geometry.place(found.packet.packet)
            mask = found.packet.in_use[: place.pages]
            self._plan.placer.write(self._store, place, mask, found.pages)
        if self._plan.target.in_place:
            for packet in packets:
                place = self._geometry.place(packet.packet)
                self._plan.placer.zero(self._store, place, packet.in_use[: place.pages])
        _count(row, self._geometry, task, packets)
        row[Counter.ENGINE_FAILURES] = self._chain.engine_failures

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        self._chain.expect(task.first, task.count)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _zero_all(self, task: Task) -> None:
        if self._plan.target.in_place:
            for packet in range(task.first, task.first + task.count):
                place = self._geometry.place(packet)
                self._plan.placer.zero(self._store, place, np.zeros(place.pages, np.bool_))


class VerifyHandler:
    """Decodes packets and compares digests, of pages too if stored; continues after damage."""

    def __init__(self, plan: Sequence[ReadPlan]) -> None:
        self._chain = open_chain(plan)
        self._snapshot = self._chain.snapshot
        self._geometry = self._snapshot.geometry

    def run(self, task: Task, row: Row) -> list[SnapmigError]:
        """Check a batch of packets; return errors for the first few damaged ones."""
        damage: list[SnapmigError] = []
        packets = self._records(task, damage)
        sound = {packet.packet: packet for packet in packets}
        for found in self._chain.load_all(packets):
            error = found.error or self._page_problem(found)
            if error is not None:
                damage.append(error)
                del sound[found.packet.packet]
        for error in self._wrong_rests(task, packets, damage):
            damage.append(error)
            sound.pop(error.packet or 0, None)
        row[Counter.DAMAGED_PACKETS] += len(damage)
        row[Counter.ENGINE_FAILURES] = self._chain.engine_failures
        if sound or damage:
            _count(row, self._geometry, task, list(sound.values()))
        else:
            _count_empty(row, self._geometry, task)
        return damage[:MAX_DAMAGE_SHOWN]

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        self._chain.expect(task.first, task.count)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _wrong_rests(
        self, task: Task, packets: Sequence[StoredPacket], damage: Sequence[SnapmigError]
    ) -> list[CorruptSnapshotError]:
        # A batch without packets has no pages, unless all of its records are damaged.
        known = {packet.packet: packet for packet in packets}
        nothing = np.zeros(self._geometry.packet_size // PAGE_SIZE, np.bool_)
        damaged = {error.packet for error in damage}

        def stored_pages(number: int) -> Mask | None:
            if number in damaged:
                return None
            if number not in known:
                return nothing
            packet = known[number]
            return packet.mask if packet.encoding in (Encoding.RAW, Encoding.EMPTY) else None

        return list(wrong_rests(self._snapshot, task.packets, stored_pages))

    def _page_problem(self, found: Loaded) -> SnapmigError | None:
        digests = self._snapshot.page_digests
        if digests is None or found.pages is None:
            return None
        try:
            error = wrong_page(found.packet, found.pages, digests.of(found.packet))
        except CorruptSnapshotError as damage:
            return damage
        if error is not None:
            error.path = self._snapshot.shown
        return error

    def _records(self, task: Task, damage: list[SnapmigError]) -> list[StoredPacket]:
        try:
            return self._chain.packets(task.first, task.count)
        except (CorruptSnapshotError, UnsupportedError):
            return list(self._each_record(task, damage))

    def _each_record(self, task: Task, damage: list[SnapmigError]) -> Iterator[StoredPacket]:
        # One of them is wrong: find it by checking each alone, and still check the others.
        for number in range(task.first, task.first + task.count):
            try:
                yield self._snapshot.packet(self._geometry.place(number))
            except (CorruptSnapshotError, UnsupportedError) as error:
                damage.append(error)


class LoadTasks:
    """
    Hands out a snapshot's packets, those without stored bytes in large batches.

    :param packets: the packets to load
    """

    def __init__(self, snapshot: SnapshotFile, packets: range) -> None:
        # Data prefetched from an object is kept in memory.
        largest = SMALLEST if snapshot.is_remote else LARGEST
        batch = partial(batch_packets, packet_size=snapshot.geometry.packet_size, largest=largest)
        self._tasks = plan_tasks(snapshot.index, packets, batch)
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


def plan_tasks(index: IndexReader, packets: range, batch: Callable[[int], int]) -> Iterator[Task]:
    """
    Yield batches of packets with pages, and large ones of packets without.

    :param batch: returns the packets of a batch, when so many are left
    """
    # Records are not checked yet here: a wrong one only makes a batch larger or smaller.
    for start, records in index.steps(packets):
        stop = start + len(records)
        empty = np.asarray(~records["kinds"].any(axis=1))
        edges = (np.flatnonzero(np.diff(empty)) + start + 1).tolist()
        for first, end in pairwise([start, *edges, stop]):
            at = first
            while at < end:
                step = EMPTY_BATCH_PACKETS if empty[first - start] else batch(packets.stop - at)
                yield Task(0, at, min(step, end - at))
                at += step


def _span(geometry: Geometry, task: Task) -> tuple[int, int]:
    # RAM offset and length of a batch; its packets are contiguous.
    first = geometry.place(task.first)
    last = geometry.place(task.first + task.count - 1)
    return first.ram_offset, last.ram_offset + last.length - first.ram_offset


def _count_empty(row: Row, geometry: Geometry, task: Task) -> None:
    row[Counter.RAM_BYTES] += _span(geometry, task)[1]
    row[Counter.EMPTY_PACKETS] += task.count


def _count(row: Row, geometry: Geometry, task: Task, packets: Sequence[StoredPacket]) -> None:
    row[Counter.RAM_BYTES] += _span(geometry, task)[1]
    data_pages = sum(int(np.count_nonzero(packet.kinds)) for packet in packets)
    row[Counter.DATA_PAGES] += data_pages
    row[Counter.WRITTEN_BYTES] += data_pages * PAGE_SIZE
    for packet in packets:
        row[encoding_counter(packet.encoding)] += 1
