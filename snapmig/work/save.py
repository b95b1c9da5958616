"""
Saving packets: image pages to slots and records.

In the fixed layout a worker encodes a batch and writes it at once. In the packed layout a
packet's place depends on all before it, so the worker encodes, reports the batch's size, and
writes when the parent has told it the place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from snapmig.container.format import Encoding, Layout
from snapmig.container.index import (
    Records,
    empty_records,
    pack_masks,
    seal_records,
)
from snapmig.container.slots import SlotPlan, SlotWriter
from snapmig.encodings.packet import EncodedPacket, PacketSettings, encode, encode_data, summarise
from snapmig.fleet.cells import Row
from snapmig.fleet.tasks import Task
from snapmig.geometry import PAGE_SIZE, Geometry, PacketPlace
from snapmig.images.source import ImageReader, read_pages
from snapmig.pages import Mask
from snapmig.work.counters import Counter, encoding_counter

__all__ = ("SaveHandler", "SavePlan", "SaveTasks")

BATCH_BYTES = 4 << 20
"""RAM in a batch: 10 ms of work, beside which a message of 50 us does not count, and short enough
that no worker waits long for the last one."""
EMPTY_BATCH_PACKETS = 4096

HELD_BATCHES = 3
"""Encoded batches of a packed snapshot that one worker may hold until their places are known."""


class Kind(IntEnum):
    """What a task asks of a save worker."""

    EMPTY = 0
    ENCODE = 1
    PLACE = 2
    REFRESH = 3
    REFRESH_EMPTY = 4


@dataclass(frozen=True)
class SavePlan:
    """
    All that a save worker needs, picklable.

    :param live: the guest runs meanwhile, so that pages change under the worker's hands
    """

    open_image: Callable[[], ImageReader]
    geometry: Geometry
    slots: SlotPlan
    settings: PacketSettings
    live: bool = False


class Batch:
    """The records of the packets of a batch that store something, column by column."""

    def __init__(self) -> None:
        self._at: list[int] = []
        self._rows: list[tuple[int, int, int, int]] = []
        self._digests: list[bytes] = []
        self._masks: list[Mask] = []

    def add(self, at: int, offset: int, packet: EncodedPacket) -> None:
        """Take a packet, the one at a place in the batch, stored at a file offset."""
        self._at.append(at)
        self._rows.append((offset, packet.stored_size, packet.encoding, packet.stored_checksum))
        self._digests.append(packet.digest)
        self._masks.append(packet.mask)

    def fill(self, records: Records) -> None:
        """Write what was taken into the batch's records."""
        if not self._at:
            return
        columns = zip(*self._rows, strict=True)
        names = ("offset", "stored_size", "encoding", "stored_checksum")
        for name, column in zip(names, columns, strict=True):
            records[name][self._at] = column
        records["digest"][self._at] = np.frombuffer(b"".join(self._digests), "V16")
        width = records.dtype["kinds"].shape[0] * 4
        records["kinds"][self._at] = pack_masks(self._masks, width)


class SaveHandler:
    """Encodes batches of packets and writes them to their places."""

    def __init__(self, plan: SavePlan) -> None:
        self._plan = plan
        self._image = plan.open_image()
        self._slots = SlotWriter(plan.slots)
        self._held: dict[int, list[EncodedPacket | None]] = {}

    def run(self, task: Task, row: Row) -> int:
        """Do one task; return the stored bytes that still need a place."""
        if task.kind in (Kind.REFRESH, Kind.REFRESH_EMPTY):
            self._refresh(task, row)
            return 0
        if task.kind == Kind.EMPTY:
            self._finish(task, Batch(), row)
            return 0
        if task.kind == Kind.PLACE:
            self._place(task, self._held.pop(task.first), row)
            return 0
        if self._plan.slots.layout == Layout.FIXED:
            self._encode_fixed(task, row)
            return 0
        return self._encode_packed(task, row)

    def _encode_fixed(self, task: Task, row: Row) -> None:
        # Each packet is written as soon as it is encoded, while it is still in the cache.
        batch = Batch()
        for at, number in enumerate(_packets(task)):
            packet = self._encode(self._plan.geometry.place(number))
            if packet is not None:
                offset = self._plan.slots.slot_offset(number)
                self._slots.write_packet(offset, packet.mask, packet.payload, packet.encoding)
                batch.add(at, offset, packet)
        self._release(task)
        self._finish(task, batch, row)

    def _encode_packed(self, task: Task, row: Row) -> int:
        packets = [self._encode(self._plan.geometry.place(number)) for number in _packets(task)]
        self._release(task)
        waiting = sum(packet.stored_size for packet in packets if packet is not None)
        if waiting:
            self._held[task.first] = packets
        else:
            self._finish(task, Batch(), row)
        return waiting

    def _place(self, task: Task, packets: list[EncodedPacket | None], row: Row) -> None:
        batch = Batch()
        offset = task.offset
        for at, packet in enumerate(packets):
            if packet is not None:
                self._slots.write_packet(offset, packet.mask, packet.payload, packet.encoding)
                batch.add(at, offset, packet)
                offset += packet.stored_size
        self._finish(task, batch, row)

    def _encode(self, place: PacketPlace) -> EncodedPacket | None:
        pages = read_pages(self._image, place)
        if pages is None:
            return None
        if self._plan.live:
            pages = pages.copy()  # digest and stream must be of the same moment
        packet = encode(pages, self._plan.settings)
        return None if packet.encoding == Encoding.EMPTY else packet

    def _finish(self, task: Task, batch: Batch, row: Row) -> None:
        records = empty_records(task.first, task.count, self._plan.geometry.packet_size)
        batch.fill(records)
        seal_records(records)
        self._slots.write_records(records)
        _count_packets(row, records, 1)
        self._count_ram(task, row)

    def _refresh(self, task: Task, row: Row) -> None:
        records = self._slots.read_records(task.first, task.count)
        suspects = list(range(task.count))
        if task.kind == Kind.REFRESH_EMPTY:
            suspects = np.flatnonzero(records["encoding"] != Encoding.EMPTY).tolist()
        before = records.copy()
        changed = [n for n in suspects if self._refresh_one(records, n, task.first + n)]
        if changed:
            seal_records(records)
            self._slots.write_records(records)
            _count_packets(row, before, -1)
            _count_packets(row, records, 1)
        row[Counter.CHANGED_PACKETS] += len(changed)
        self._count_ram(task, row)
        self._release(task)

    def _refresh_one(self, records: Records, at: int, number: int) -> bool:
        # Whether the packet's pages are others than those that the record is of.
        place = self._plan.geometry.place(number)
        pages = read_pages(self._image, place)
        if pages is None:
            pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
        mask, data, digest = summarise(pages)
        kinds = pack_masks([mask], self._plan.geometry.packet_pages)[0]
        same = np.array_equal(records["kinds"][at], kinds)
        if same and records["digest"][at].tobytes() == digest:
            return False
        packet = encode_data(mask, data, digest, self._plan.settings)
        empty = packet.encoding == Encoding.EMPTY
        offset = 0 if empty else self._plan.slots.slot_offset(number)
        if not empty:
            self._slots.write_packet(offset, mask, packet.payload, packet.encoding)
        self._slots.free_rest(number, mask, packet.stored_size, packet.encoding)
        fresh = empty_records(number, 1, self._plan.geometry.packet_size)
        if not empty:
            batch = Batch()
            batch.add(0, offset, packet)
            batch.fill(fresh)
        records[at] = fresh[0]
        return True

    def _count_ram(self, task: Task, row: Row) -> None:
        geometry = self._plan.geometry
        first = geometry.place(task.first)
        last = geometry.place(task.first + task.count - 1)
        row[Counter.RAM_BYTES] += last.ram_offset + last.length - first.ram_offset

    def _release(self, task: Task) -> None:
        # A block of its own for each batch: they never span two.
        geometry = self._plan.geometry
        first = geometry.place(task.first)
        last = geometry.place(task.first + task.count - 1)
        self._image.release(first.ram_offset, last.ram_offset + last.length)


class SaveTasks:
    """
    Hands out an image's packets in order, holes in large batches.

    :param next_data: gives the first RAM offset from one on that is not in a hole
    :param again: all packets were saved before, and only those that changed are wanted
    """

    def __init__(
        self,
        geometry: Geometry,
        slots: SlotPlan,
        next_data: Callable[[int], int | None],
        *,
        again: bool = False,
    ) -> None:
        kinds = (Kind.REFRESH_EMPTY, Kind.REFRESH) if again else (Kind.EMPTY, Kind.ENCODE)
        self._tasks = _plan_tasks(geometry, next_data, *kinds)
        self._packed = slots.layout == Layout.PACKED
        self._offset = slots.data_offset
        self._order: deque[int] = deque()
        self._sized: dict[int, tuple[int, Task, int]] = {}
        self._held: dict[int, int] = {}

    @property
    def end(self) -> int:
        """The file offset after the last place that was given out, in the packed layout."""
        return self._offset

    def next_for(self, worker: int) -> Task | None:
        """Return the next batch, unless the worker holds enough of them without a place."""
        if self._held.get(worker, 0) >= HELD_BATCHES:
            return None
        task = next(self._tasks, None)
        if task is not None and self._packed and task.kind == Kind.ENCODE:
            self._order.append(task.first)
            self._held[worker] = self._held.get(worker, 0) + 1
        return task

    def finished(self, worker: int, task: Task, reply: int) -> list[tuple[int, Task]]:
        """Take a batch's size; return the batches whose places are known now."""
        if not self._packed or task.kind != Kind.ENCODE:
            return []
        self._sized[task.first] = (worker, task, reply)
        placed = []
        while self._order and self._order[0] in self._sized:
            owner, batch, size = self._sized.pop(self._order.popleft())
            self._held[owner] -= 1
            if size:
                place = Task(Kind.PLACE, batch.first, batch.count, self._offset)
                placed.append((owner, place))
                self._offset += size
        return placed


def _count_packets(row: Row, records: Records, times: int) -> None:
    for encoding, count in enumerate(np.bincount(records["encoding"]).tolist()):
        if count:
            row[encoding_counter(Encoding(encoding))] += times * count
    row[Counter.STORED_BYTES] += times * int(records["stored_size"].sum(dtype=np.int64))
    row[Counter.DATA_PAGES] += times * int(np.bitwise_count(records["kinds"]).sum(dtype=np.int64))


def _plan_tasks(
    geometry: Geometry, next_data: Callable[[int], int | None], hole: Kind, data: Kind
) -> Iterator[Task]:
    batch = max(1, BATCH_BYTES // geometry.packet_size)
    for number in range(len(geometry.blocks)):
        packets = geometry.block_packets(number)
        packet = packets.start
        while packet < packets.stop:
            found = next_data(geometry.place(packet).ram_offset)
            end = geometry.block_start(number) + geometry.blocks[number].size
            with_data = packets.stop if found is None or found >= end else geometry.packet_at(found)
            if with_data > packet:
                count = min(with_data - packet, EMPTY_BATCH_PACKETS)
                yield Task(hole, packet, count)
            else:
                count = min(batch, packets.stop - packet)
                yield Task(data, packet, count)
            packet += count


def _packets(task: Task) -> range:
    return range(task.first, task.first + task.count)
