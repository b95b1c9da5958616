"""A save worker's side of the partial snapshot: packets, records, page digests, and their cost."""

from __future__ import annotations

from collections import deque
from time import perf_counter_ns

import numpy as np

from snapmig.container.format import Encoding, page_digests_size
from snapmig.container.index import Records, StoredPacket, empty_records, seal_records
from snapmig.container.slots import SlotPlan, SlotWriter
from snapmig.encodings.packet import EncodedPacket
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.counters import Counter, count_packets
from snapmig.handlers.records import Batch
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("PacketStore",)

PACED_BATCHES = 4
"""Written batches of a worker that the disk may be behind by when the level follows its speed."""


class PacketStore:
    """
    Writes encoded packets to their places, and counts bytes and time.

    :param paced: run no further ahead of the disk than :data:`PACED_BATCHES`, so that the time
        spent in writing tells its speed
    """

    def __init__(self, plan: SlotPlan, geometry: Geometry, *, paced: bool) -> None:
        self._plan = plan
        self._geometry = geometry
        self._slots = SlotWriter(plan)
        self._has_digests = plan.page_digests_offset > 0
        self._paced = paced
        self._written: deque[tuple[int, int]] = deque()
        self._write_ns = 0
        self._written_bytes = 0

    def count(self, row: Row) -> None:
        """Add the bytes written, and the time for it, since the last call."""
        row[Counter.WRITE_NS] += self._write_ns
        row[Counter.WRITTEN_BYTES] += self._written_bytes
        self._write_ns = self._written_bytes = 0

    def new_batch(self) -> Batch:
        """Return an empty batch, with page digests if the snapshot has them."""
        return Batch(with_digests=self._has_digests)

    def write_to_slot(self, number: int, packet: EncodedPacket) -> int:
        """Write a packet in the fixed layout; return the offset for its record."""
        if packet.encoding == Encoding.EMPTY:
            return 0
        offset = self._plan.slot_offset(number)
        self.write(offset, packet)
        return offset

    def write(self, offset: int, packet: EncodedPacket) -> None:
        """Write a packet at a file offset."""
        started = perf_counter_ns()
        self._slots.write_packet(offset, packet.mask, packet.payload, packet.encoding)
        self._written_bytes += packet.stored_size
        self._write_ns += perf_counter_ns() - started

    def write_back_slots(self, task: Task) -> None:
        """Start writing a batch's slots to disk, in the fixed layout."""
        self.write_back(self._plan.slot_offset(task.first), task.count * self._plan.packet_size)

    def write_back(self, offset: int, length: int) -> None:
        """Start writing a range to disk, and if paced, wait for an older one."""
        started = perf_counter_ns()
        self._slots.start_writing_back(offset, length)
        if self._paced:
            self._written.append((offset, length))
            if len(self._written) > PACED_BATCHES:
                self._slots.wait_for_disk(*self._written.popleft())
        self._write_ns += perf_counter_ns() - started

    def write_batch(self, task: Task, batch: Batch, row: Row) -> None:
        """Write records and page digests of a batch whose packets are written."""
        records = empty_records(task.first, task.count, self._plan.packet_size)
        batch.fill(records)
        seal_records(records)
        self._slots.write_page_digests(task.first, batch.page_digests)
        self._slots.write_records(records)
        count_packets(row, records, 1)
        self.count_ram(task, row)

    def count_ram(self, task: Task, row: Row) -> None:
        """Count the RAM of a finished batch."""
        row[Counter.RAM_BYTES] += len(self._geometry.ram_range(task.packets))

    def put(
        self, number: int, packet: EncodedPacket | None, batch: Batch, before: Records, row: Row
    ) -> None:
        """
        Write one packet and its record in the fixed layout, over an older one if there is any.

        :param packet: None if the batch has it, because it equals the parent's
        :param batch: a batch of this packet only
        :param before: its present record
        """
        records = empty_records(number, 1, self._plan.packet_size)
        rest = (np.zeros(self._plan.packet_size // PAGE_SIZE, np.bool_), 0, Encoding.EMPTY)
        if packet is not None:
            batch.add(0, self.write_to_slot(number, packet), packet)
            rest = (packet.mask, packet.stored_size, packet.encoding)
            self.write_back(self._plan.slot_offset(number), packet.stored_size)
        batch.fill(records)
        if int(before["stored_size"][0]):
            self._slots.free_rest(number, *rest)
            row[Counter.CHANGED_PACKETS] += 1
            row[Counter.REWRITTEN_BYTES] += int(records["stored_size"][0])
        if self._has_digests:
            none = {0: bytes(page_digests_size(self._plan.packet_size))}
            self._slots.write_page_digests(number, batch.page_digests or none)
        self.replace_records(before, records, row)

    def read_packet(self, packet: StoredPacket) -> bytes:
        """Return the stored bytes of a packet written before."""
        return self._slots.read_packet(packet)

    def write_empty(self, task: Task, row: Row) -> None:
        """Write records of a batch without pages, for packets to come."""
        records = empty_records(task.first, task.count, self._plan.packet_size)
        seal_records(records)
        self._slots.write_records(records)
        count_packets(row, records, 1)

    def read_records(self, task: Task) -> Records:
        """Return the records of a batch written before."""
        return self._slots.read_records(task.first, task.count)

    def replace_records(self, before: Records, records: Records, row: Row) -> None:
        """Write the records of a batch with replaced packets."""
        seal_records(records)
        self._slots.write_records(records)
        if before["kinds"].any():
            count_packets(row, before, -1)
        else:  # in a fraction of the time
            row[Counter.EMPTY_PACKETS] -= len(before)
        count_packets(row, records, 1)

    def replace(self, number: int, packet: EncodedPacket) -> Records:
        """Write a packet over an older one, in the fixed layout; return its record, unsealed."""
        fresh = empty_records(number, 1, self._plan.packet_size)
        batch = self.new_batch()
        batch.add(0, self.write_to_slot(number, packet), packet)
        batch.fill(fresh)
        self._slots.free_rest(number, packet.mask, packet.stored_size, packet.encoding)
        if self._has_digests:
            none = {0: bytes(page_digests_size(self._plan.packet_size))}
            self._slots.write_page_digests(number, batch.page_digests or none)
        return fresh
