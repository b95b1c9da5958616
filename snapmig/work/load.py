"""
Loading packets: slots to checked page contents, and those to an image or to nowhere.

One path serves restore, verify and random access, so that none of them checks less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from snapmig.container.format import Encoding
from snapmig.container.index import Records, StoredPacket, unpack_records
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.packet import decode
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.fleet.cells import Row
from snapmig.fleet.tasks import Task
from snapmig.images.plan import Placer
from snapmig.images.target import TargetPlan, open_store
from snapmig.pages import Bytes
from snapmig.work.counters import Counter, encoding_counter

__all__ = (
    "LoadTasks",
    "RestoreHandler",
    "RestorePlan",
    "VerifyHandler",
    "load_packet",
)

BATCH_BYTES = 4 << 20
EMPTY_BATCH_PACKETS = 4096
MAX_DAMAGE_SHOWN = 8
"""Damaged packets that a batch describes; the others are only counted."""

_INDEX_STEP = 65536


def load_packet(snapshot: SnapshotFile, packet: StoredPacket) -> Bytes | None:
    """
    Return a packet's data pages as ``(n, 4096)``, None when it has none.

    :param packet: what its checked record says
    :raises CorruptSnapshotError: stored bytes or contents are not what they should be
    """
    if packet.encoding == Encoding.EMPTY:
        return None
    try:
        return decode(packet, snapshot.stored(packet), snapshot.superblock.window_bits)
    except SnapmigError as error:
        error.path = snapshot.shown
        raise


@dataclass(frozen=True)
class RestorePlan:
    """
    All that a restore worker needs, picklable.

    :param placer: puts packets to their places in the target
    """

    snapshot_path: str
    shown: str
    target: TargetPlan
    placer: Placer


class RestoreHandler:
    """Decodes packets and writes their pages into an image."""

    def __init__(self, plan: RestorePlan) -> None:
        self._plan = plan
        self._snapshot = SnapshotFile(plan.snapshot_path, plan.shown)
        self._store = open_store(plan.target)

    def run(self, task: Task, row: Row) -> None:
        """Restore a batch of packets."""
        records = self._snapshot.checked_records(task.first, task.count)
        if (records["encoding"] == Encoding.EMPTY).all():
            self._zero_all(task)
            _count_empty(row, self._snapshot, task)
            return
        packets = unpack_records(records)
        for packet in packets:
            self._restore(packet)
        _count(row, self._snapshot, task, packets)

    def _restore(self, packet: StoredPacket) -> None:
        data = load_packet(self._snapshot, packet)
        if data is None and not self._plan.target.in_place:
            return
        place = self._snapshot.geometry.place(packet.packet)
        mask = packet.mask[: place.pages]
        if data is not None:
            self._plan.placer.write(self._store, place, mask, data)
        if self._plan.target.in_place:
            self._plan.placer.zero(self._store, place, mask)

    def _zero_all(self, task: Task) -> None:
        if self._plan.target.in_place:
            for packet in range(task.first, task.first + task.count):
                place = self._snapshot.geometry.place(packet)
                self._plan.placer.zero(self._store, place, np.zeros(place.pages, np.bool_))


class VerifyHandler:
    """Decodes packets and compares; goes on after a damaged one."""

    def __init__(self, snapshot_path: str, shown: str) -> None:
        self._snapshot = SnapshotFile(snapshot_path, shown)

    def run(self, task: Task, row: Row) -> list[SnapmigError]:
        """Check a batch of packets; return what is wrong with the first few damaged ones."""
        try:
            records = self._snapshot.checked_records(task.first, task.count)
            if (records["encoding"] == Encoding.EMPTY).all():
                _count_empty(row, self._snapshot, task)
                return []
        except (CorruptSnapshotError, UnsupportedError):
            pass  # one of them is wrong: each alone says which, and the others are checked still
        return self._check_each(task, row)

    def _check_each(self, task: Task, row: Row) -> list[SnapmigError]:
        damage: list[SnapmigError] = []
        sound: list[StoredPacket] = []
        for number in range(task.first, task.first + task.count):
            try:
                packet = self._snapshot.packet(self._snapshot.geometry.place(number))
                load_packet(self._snapshot, packet)
            except (CorruptSnapshotError, UnsupportedError) as error:
                row[Counter.DAMAGED_PACKETS] += 1
                if len(damage) < MAX_DAMAGE_SHOWN:
                    damage.append(error)
                continue
            sound.append(packet)
        _count(row, self._snapshot, task, sound)
        return damage


class LoadTasks:
    """
    Hands out a snapshot's packets, those that store nothing in large batches.

    :param packets: which ones
    """

    def __init__(self, snapshot: SnapshotFile, packets: range) -> None:
        batch = max(1, BATCH_BYTES // snapshot.geometry.packet_size)
        self._tasks = _plan_tasks(snapshot.records, packets, batch)
        self.replies: list[Any] = []

    def next_for(self, _worker: int) -> Task | None:
        """Return the next batch."""
        return next(self._tasks, None)

    def finished(self, _worker: int, _task: Task, reply: Any) -> list[tuple[int, Task]]:
        """Keep a reply that says something."""
        if reply:
            self.replies.extend(reply)
        return []


def _plan_tasks(records: Records, packets: range, batch: int) -> Iterator[Task]:
    # A record is not checked yet here: a wrong encoding only makes a batch larger or smaller.
    for start in range(packets.start, packets.stop, _INDEX_STEP):
        stop = min(start + _INDEX_STEP, packets.stop)
        empty = records["encoding"][start:stop] == Encoding.EMPTY
        edges = (np.flatnonzero(np.diff(empty)) + start + 1).tolist()
        for first, end in pairwise([start, *edges, stop]):
            step = EMPTY_BATCH_PACKETS if empty[first - start] else batch
            for at in range(first, end, step):
                yield Task(0, at, min(step, end - at))


def _span(snapshot: SnapshotFile, task: Task) -> tuple[int, int]:
    # The RAM offset at which a batch starts, and its length: packets follow each other there.
    first = snapshot.geometry.place(task.first)
    last = snapshot.geometry.place(task.first + task.count - 1)
    return first.ram_offset, last.ram_offset + last.length - first.ram_offset


def _count_empty(row: Row, snapshot: SnapshotFile, task: Task) -> None:
    row[Counter.RAM_BYTES] += _span(snapshot, task)[1]
    row[Counter.EMPTY_PACKETS] += task.count


def _count(row: Row, snapshot: SnapshotFile, task: Task, packets: Sequence[StoredPacket]) -> None:
    row[Counter.RAM_BYTES] += _span(snapshot, task)[1]
    row[Counter.DATA_PAGES] += sum(packet.data_pages for packet in packets)
    for packet in packets:
        row[encoding_counter(packet.encoding)] += 1
