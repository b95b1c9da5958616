"""
Loading packets: slots to checked page contents, and those to an image or to nowhere.

One path serves restore, verify and random access, so that none of them checks less.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from snapmig.container.format import Encoding
from snapmig.container.index import Records, StoredPacket, unpack_records
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.encodings.decoder import Decoded, PacketDecoder
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.fleet.cells import Row
from snapmig.fleet.tasks import Task
from snapmig.images.plan import Placer
from snapmig.images.target import TargetPlan, open_store
from snapmig.pages import Bytes
from snapmig.work.counters import Counter, encoding_counter

__all__ = (
    "LoadTasks",
    "PacketLoader",
    "ReadPlan",
    "RestoreHandler",
    "RestorePlan",
    "VerifyHandler",
)

BATCH_BYTES = 4 << 20
EMPTY_BATCH_PACKETS = 4096
MAX_DAMAGE_SHOWN = 8
"""Damaged packets that a batch describes; the others are only counted."""

_INDEX_STEP = 65536


@dataclass(frozen=True)
class ReadPlan:
    """
    All that a worker needs to read a snapshot, picklable.

    :param path: opens it, also in another process
    :param shown: its name for people
    """

    path: str
    shown: str
    settings: ReadSettings


@dataclass(frozen=True)
class RestorePlan:
    """
    All that a restore worker needs, picklable.

    :param placer: puts packets to their places in the target
    """

    read: ReadPlan
    target: TargetPlan
    placer: Placer


class PacketLoader:
    """
    Reads packets of an open snapshot: stored bytes, checked, decoded, checked again.

    :param snapshot: stays the caller's to close
    :ivar failures: what an engine did not do, so that software did
    """

    def __init__(self, snapshot: SnapshotFile, settings: ReadSettings | None = None) -> None:
        self._snapshot = snapshot
        if settings is None:
            settings = ReadSettings(snapshot.superblock.window_bits)
        self._decoder = PacketDecoder(settings)
        self.failures = self._decoder.failures

    def load(self, packet: StoredPacket) -> Bytes | None:
        """
        Return a packet's data pages as ``(n, 4096)``, None when it has none.

        :param packet: what its checked record says
        :raises CorruptSnapshotError: stored bytes or contents are not what they should be
        """
        for found in self.load_all([packet]):
            if found.error is not None:
                raise found.error
            return found.pages
        return None

    def load_all(self, packets: Iterable[StoredPacket]) -> Iterator[Decoded]:
        """
        Yield those packets that store something, in any order, with what is wrong with them.

        A packet's pages are good until the next one is asked for.

        :raises SnapmigError: the library of an encoding is missing
        """
        damaged: deque[Decoded] = deque()
        for found in self._decoder.decode_all(self._stored(packets, damaged)):
            if found.error is not None:
                found.error.path = self._snapshot.shown
            yield found
        yield from damaged

    def _stored(
        self, packets: Iterable[StoredPacket], damaged: deque[Decoded]
    ) -> Iterator[tuple[StoredPacket, bytes]]:
        for packet in packets:
            if packet.encoding == Encoding.EMPTY:
                continue
            try:
                stored = self._snapshot.stored(packet)
            except CorruptSnapshotError as error:
                error.path = self._snapshot.shown
                damaged.append(Decoded(packet, None, error))
            else:
                yield packet, stored


class RestoreHandler:
    """Decodes packets and writes their pages into an image."""

    def __init__(self, plan: RestorePlan) -> None:
        self._plan = plan
        self._snapshot = SnapshotFile(plan.read.path, plan.read.shown)
        self._loader = PacketLoader(self._snapshot, plan.read.settings)
        self._store = open_store(plan.target)

    def run(self, task: Task, row: Row) -> None:
        """Restore a batch of packets."""
        records = self._snapshot.checked_records(task.first, task.count)
        if (records["encoding"] == Encoding.EMPTY).all():
            self._zero_all(task)
            _count_empty(row, self._snapshot, task)
            return
        packets = unpack_records(records)
        for found in self._loader.load_all(packets):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            place = self._snapshot.geometry.place(found.packet.packet)
            mask = found.packet.mask[: place.pages]
            self._plan.placer.write(self._store, place, mask, found.pages)
        if self._plan.target.in_place:
            for packet in packets:
                place = self._snapshot.geometry.place(packet.packet)
                self._plan.placer.zero(self._store, place, packet.mask[: place.pages])
        _count(row, self._snapshot, task, packets)
        row[Counter.ENGINE_FAILURES] = self._loader.failures.count

    def notes(self) -> Sequence[str]:
        """Return what an engine did not do."""
        return self._loader.failures.take()

    def _zero_all(self, task: Task) -> None:
        if self._plan.target.in_place:
            for packet in range(task.first, task.first + task.count):
                place = self._snapshot.geometry.place(packet)
                self._plan.placer.zero(self._store, place, np.zeros(place.pages, np.bool_))


class VerifyHandler:
    """Decodes packets and compares; goes on after a damaged one."""

    def __init__(self, plan: ReadPlan) -> None:
        self._snapshot = SnapshotFile(plan.path, plan.shown)
        self._loader = PacketLoader(self._snapshot, plan.settings)

    def run(self, task: Task, row: Row) -> list[SnapmigError]:
        """Check a batch of packets; return what is wrong with the first few damaged ones."""
        damage: list[SnapmigError] = []
        packets = self._records(task, damage)
        sound = {packet.packet: packet for packet in packets}
        for found in self._loader.load_all(packets):
            if found.error is not None:
                damage.append(found.error)
                del sound[found.packet.packet]
        row[Counter.DAMAGED_PACKETS] += len(damage)
        row[Counter.ENGINE_FAILURES] = self._loader.failures.count
        if sound or damage:
            _count(row, self._snapshot, task, list(sound.values()))
        else:
            _count_empty(row, self._snapshot, task)
        return damage[:MAX_DAMAGE_SHOWN]

    def notes(self) -> Sequence[str]:
        """Return what an engine did not do."""
        return self._loader.failures.take()

    def _records(self, task: Task, damage: list[SnapmigError]) -> list[StoredPacket]:
        try:
            records = self._snapshot.checked_records(task.first, task.count)
        except (CorruptSnapshotError, UnsupportedError):
            return list(self._each_record(task, damage))
        if (records["encoding"] == Encoding.EMPTY).all():
            return []
        return unpack_records(records)

    def _each_record(self, task: Task, damage: list[SnapmigError]) -> Iterator[StoredPacket]:
        # One of them is wrong: each alone says which, and the others are checked still.
        for number in range(task.first, task.first + task.count):
            try:
                yield self._snapshot.packet(self._snapshot.geometry.place(number))
            except (CorruptSnapshotError, UnsupportedError) as error:
                damage.append(error)


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
