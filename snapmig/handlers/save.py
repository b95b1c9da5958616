"""
Saving packets: image pages to slots and records.

In the fixed layout a worker encodes a batch and writes it at once. In the packed layout a
packet's place depends on all before it, so the worker encodes, reports the batch's size, and
writes when the parent has told it the place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np

from snapmig.chains.reader import ReadPlan
from snapmig.container.format import Encoding, Layout, PageKind, page_digests_size
from snapmig.container.index import (
    Records,
    empty_records,
    seal_records,
    unpack_kinds,
)
from snapmig.container.slots import SlotPlan, SlotWriter
from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.packet import EncodedPacket, Summary, summarise, with_page_digests
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.counters import Counter, encoding_counter
from snapmig.handlers.parent import ParentPackets
from snapmig.handlers.records import Batch
from snapmig.handlers.save_tasks import Kind
from snapmig.images.source import ImageReader, read_batch, read_pages
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("SaveHandler", "SavePlan")

PACED_BATCHES = 4
"""Written batches of a worker that the disk may be behind by when the level follows its speed."""


class SavePlan(NamedTuple):
    """
    All that a save worker needs, picklable.

    :param parents: snapshots whose pages need not be stored again, the youngest first
    :param paced: workers run no further ahead of the disk than :data:`PACED_BATCHES`, so that the
        time they spend in writing tells how fast it is
    :param deltas: whether pages may be stored as differences from the parent's; None: where its
        pages are decoded anyway
    """

    open_image: Callable[[], ImageReader]
    parents: Sequence[ReadPlan]
    geometry: Geometry
    slots: SlotPlan
    settings: PacketSettings
    paced: bool = False
    deltas: bool | None = None


class SaveHandler:
    """Encodes batches of packets and writes them to their places."""

    def __init__(self, plan: SavePlan) -> None:
        self._plan = plan
        self._image = plan.open_image()
        self._slots = SlotWriter(plan.slots)
        self._encoder = PacketEncoder(plan.settings)
        self._has_digests = plan.slots.page_digests_offset > 0
        self._parent = _open_parent(plan) if plan.parents else None
        # Where they are compared with a parent's, only packets that changed are digested by page.
        self._digests_all = self._has_digests and not (self._parent and self._parent.has_digests)
        self._held: dict[int, tuple[Batch, list[EncodedPacket | None]]] = {}
        self._written: deque[tuple[int, int]] = deque()
        self._write_ns = 0
        self._written_bytes = 0

    def run(self, task: Task, row: Row) -> int:
        """Do one task; return the stored bytes that still need a place."""
        started = perf_counter_ns()
        self._write_ns = 0
        self._written_bytes = 0
        waiting = self._run(task, row)
        row[Counter.WORK_NS] += perf_counter_ns() - started
        row[Counter.WRITE_NS] += self._write_ns
        row[Counter.WRITTEN_BYTES] += self._written_bytes
        row[Counter.ENGINE_FAILURES] = self._encoder.failures.count
        if self._parent is not None:
            row[Counter.ENGINE_FAILURES] += self._parent.engine_failures
        return waiting

    def expect(self, task: Task) -> None:
        """Have a batch's pages at hand."""
        if task.kind == Kind.ENCODE:
            geometry = self._plan.geometry
            first, last = geometry.place(task.first), geometry.place(task.first + task.count - 1)
            self._image.expect(first.ram_offset, last.ram_offset + last.length)

    def notes(self) -> Sequence[str]:
        """Return what an engine did not do."""
        of_parent = [] if self._parent is None else self._parent.notes()
        return [*self._encoder.failures.take(), *of_parent]

    def _run(self, task: Task, row: Row) -> int:
        if task.kind == Kind.SAMPLE:
            self._sample(task, row)
            return 0
        if task.kind in (Kind.REFRESH, Kind.REFRESH_EMPTY):
            self._refresh(task, row)
            return 0
        if task.kind == Kind.EMPTY:
            self._finish(task, self._batch(), row)
            return 0
        if task.kind == Kind.PLACE:
            self._place(task, *self._held.pop(task.first), row)
            return 0
        if self._plan.slots.layout == Layout.FIXED:
            self._encode_fixed(task, row)
            return 0
        return self._encode_packed(task, row)

    def _encode_fixed(self, task: Task, row: Row) -> None:
        # Each packet is written as soon as it is encoded, while it is still in the cache.
        batch = self._batch()
        for at, packet in self._encode(task, self._summaries(task)):
            batch.add(at, self._write_to_slot(task.first + at, packet), packet)
        if self._parent is not None:
            self._parent.take_same(batch)
        self._release(task)
        self._finish(task, batch, row)
        slots = self._plan.slots
        self._write_back(slots.slot_offset(task.first), task.count * slots.packet_size)

    def _encode_packed(self, task: Task, row: Row) -> int:
        batch = self._batch()
        packets: list[EncodedPacket | None] = [None] * task.count
        for at, packet in self._encode(task, self._summaries(task)):
            packets[at] = packet.kept()
        if self._parent is not None:
            self._parent.take_same(batch)
        self._release(task)
        waiting = sum(packet.stored_size for packet in packets if packet is not None)
        if waiting:
            self._held[task.first] = (batch, packets)
        else:
            self._place(task, batch, packets, row)
        return waiting

    def _place(
        self, task: Task, batch: Batch, packets: list[EncodedPacket | None], row: Row
    ) -> None:
        offset = task.argument
        for at, packet in enumerate(packets):
            if packet is None:
                continue
            if packet.stored_size:
                self._write(offset, packet)
            batch.add(at, offset if packet.stored_size else 0, packet)
            offset += packet.stored_size
        self._finish(task, batch, row)
        if offset > task.argument:
            self._write_back(task.argument, offset - task.argument)

    def _encode(
        self, task: Task, summaries: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[int, EncodedPacket]]:
        # The packets by their places in the batch, in any order; some that are all zero left out.
        if self._parent is None:
            yield from self._encoder.encode_all(summaries, task.argument)
            return
        drafts = self._parent.compare(summaries)
        for key, packet in self._encoder.encode_all(drafts, task.argument):
            yield from self._parent.choose(key, packet)

    def _summaries(self, task: Task) -> Iterator[tuple[int, Summary]]:
        places = self._plan.geometry.places(task.first, task.count)
        if self._parent is not None:
            self._parent.look_at(task)
        for at, pages in enumerate(read_batch(self._image, places)):
            if pages is None:
                continue
            if self._parent is None:
                yield at, summarise(pages, page_digests=self._digests_all)
            elif (summary := self._parent.summarise(at, pages)) is not None:
                yield at, summary

    def _write_to_slot(self, number: int, packet: EncodedPacket) -> int:
        # In the fixed layout; returns the offset that belongs into the record.
        if packet.encoding == Encoding.EMPTY:
            return 0
        offset = self._plan.slots.slot_offset(number)
        self._write(offset, packet)
        return offset

    def _write(self, offset: int, packet: EncodedPacket) -> None:
        started = perf_counter_ns()
        self._slots.write_packet(offset, packet.mask, packet.payload, packet.encoding)
        self._written_bytes += packet.stored_size
        self._write_ns += perf_counter_ns() - started

    def _write_back(self, offset: int, length: int) -> None:
        started = perf_counter_ns()
        self._slots.start_writing_back(offset, length)
        if self._plan.paced:
            self._written.append((offset, length))
            if len(self._written) > PACED_BATCHES:
                self._slots.wait_for_disk(*self._written.popleft())
        self._write_ns += perf_counter_ns() - started

    def _finish(self, task: Task, batch: Batch, row: Row) -> None:
        records = empty_records(task.first, task.count, self._plan.geometry.packet_size)
        batch.fill(records)
        seal_records(records)
        self._slots.write_page_digests(task.first, batch.page_digests)
        self._slots.write_records(records)
        _count_packets(row, records, 1)
        self._count_ram(task, row)

    def _batch(self) -> Batch:
        return Batch(with_digests=self._has_digests)

    def _refresh(self, task: Task, row: Row) -> None:
        records = self._slots.read_records(task.first, task.count)
        suspects = list(range(task.count))
        if task.kind == Kind.REFRESH_EMPTY:
            suspects = np.flatnonzero(records["encoding"] != Encoding.EMPTY).tolist()
        before = records.copy()
        count = 0
        if self._parent is not None:
            self._parent.look_at(task)
        for at, packet in self._encode(task, self._changed(task, records, suspects)):
            self._store_again(records, at, packet)
            count += 1
        if count:
            seal_records(records)
            self._slots.write_records(records)
            _count_packets(row, before, -1)
            _count_packets(row, records, 1)
        row[Counter.CHANGED_PACKETS] += count
        self._count_ram(task, row)
        self._release(task)

    def _sample(self, task: Task, row: Row) -> None:
        # Some of the packets, as far apart as the task says.
        records = self._slots.read_records(task.first, task.count)
        step = task.argument
        sample = range(-task.first % step, task.count, step)
        row[Counter.SAMPLED_PACKETS] += len(sample)
        row[Counter.CHANGED_PACKETS] += sum(1 for _ in self._changed(task, records, sample))
        self._release(task)

    def _changed(
        self, task: Task, records: Records, suspects: Sequence[int]
    ) -> Iterator[tuple[int, Summary]]:
        # Those whose pages are others than those that the record is of.
        geometry = self._plan.geometry
        for at in suspects:
            place = geometry.place(task.first + at)
            pages = read_pages(self._image, place)
            if pages is None:
                pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
            summary = summarise(pages)
            in_use = unpack_kinds(records["kinds"][at], place.pages) != PageKind.ZERO
            same = np.array_equal(in_use, summary.kinds)
            if not same or records["digest"][at].tobytes() != summary.digest:
                yield at, with_page_digests(summary) if self._digests_all else summary

    def _store_again(self, records: Records, at: int, packet: EncodedPacket) -> None:
        number = int(records["packet"][at])
        fresh = empty_records(number, 1, self._plan.geometry.packet_size)
        batch = self._batch()
        batch.add(0, self._write_to_slot(number, packet), packet)
        batch.fill(fresh)
        self._slots.free_rest(number, packet.mask, packet.stored_size, packet.encoding)
        if self._has_digests:
            none = {0: bytes(page_digests_size(self._plan.geometry.packet_size))}
            self._slots.write_page_digests(number, batch.page_digests or none)
        records[at] = fresh[0]

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


def _open_parent(plan: SavePlan) -> ParentPackets:
    keep = plan.slots.page_digests_offset > 0
    return ParentPackets(plan.parents, deltas=plan.deltas, keep_digests=keep)


def _count_packets(row: Row, records: Records, times: int) -> None:
    for encoding, count in enumerate(np.bincount(records["encoding"]).tolist()):
        if count:
            row[encoding_counter(Encoding(encoding))] += times * count
    row[Counter.STORED_BYTES] += times * int(records["stored_size"].sum(dtype=np.int64))
    low, high = records["kinds"] & 0x55, records["kinds"] >> 1 & 0x55  # each page's two bits
    for counter, bits in (
        (Counter.DATA_PAGES, low | high),
        (Counter.SAME_PAGES, high & ~low),
        (Counter.DELTA_PAGES, high & low),
    ):
        row[counter] += times * int(np.bitwise_count(bits).sum(dtype=np.int64))
