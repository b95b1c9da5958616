"""A save worker's side of the partial snapshot: packets, records, page digests, and their cost."""

from __future__ import annotations

from collections import deque
from time import perf_counter_ns

import numpy as np

from snapmig.checksums import crc32
from snapmig.container.format import Encoding, page_digests_size
from snapmig.container.index import Records, StoredPacket, empty_records, seal_records
from snapmig.container.sealed import PacketSealer
from snapmig.container.slots import SlotPlan, SlotWriter
from snapmig.encodings.packet import EncodedPacket
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.counters import Counter, count_packets
from snapmig.handlers.records import Batch
from snapmig.system.thread_time import ThreadTime
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("PacketStore", "batches_ahead")

FIRST_AHEAD, MOST_AHEAD, AHEAD_STEP = 3, 6, 8
"""
Written batches of a worker that the disk may be behind by when codecs follow its speed: at first
few, so that it soon shows its speed, and one more after so many. With these, memory that shrinks
well pays for memory that doesn't.
"""


def batches_ahead(written: int) -> int:
    """Return how many batches a worker may be ahead of the disk after so many."""
    return min(MOST_AHEAD, FIRST_AHEAD + written // AHEAD_STEP)


class PacketStore:
    """
    Writes encoded packets to their places, and counts bytes and time.

    :param paced: run no further ahead of the disk than :func:`batches_ahead`, so that the time
        spent in writing tells its speed
    :param tidies: an earlier run may have left bytes beside those of the packets written now
    """

    def __init__(
        self, plan: SlotPlan, geometry: Geometry, *, paced: bool, tidies: bool = False
    ) -> None:
        self.plan = self._plan = plan
        self._tidies = tidies
        self._geometry = geometry
        self._slots = SlotWriter(plan)
        pages = plan.packet_size // PAGE_SIZE
        self._sealer = None if plan.key is None else PacketSealer(plan.key, pages)
        self._has_digests = plan.page_digests_offset > 0
        self._awake = ThreadTime() if paced else None
        self._written: deque[tuple[int, int, int]] = deque()
        self._batches = 0
        self._in_batch = 0
        self._drained_bytes = 0
        self._write_ns = 0
        self._wait_ns = 0
        self._written_bytes = 0

    def count(self, row: Row) -> None:
        """Add the bytes written, and the time for it, since the last call."""
        row[Counter.WRITE_NS] += self._write_ns
        row[Counter.WAIT_NS] += self._wait_ns
        row[Counter.WRITTEN_BYTES] += self._written_bytes
        row[Counter.DRAINED_BYTES] += self._drained_bytes
        self._write_ns = self._wait_ns = self._written_bytes = self._drained_bytes = 0

    def new_batch(self) -> Batch:
        """Return an empty batch, with page digests if the snapshot has them."""
        return Batch(with_digests=self._has_digests, sealer=self._sealer)

    def write_to_slot(self, number: int, packet: EncodedPacket) -> tuple[int, EncodedPacket]:
        """Write a packet in the fixed layout; return the offset for its record, and the packet."""
        if packet.encoding == Encoding.EMPTY:
            return 0, packet
        offset = self._plan.slot_offset(number)
        return offset, packet if packet.in_place else self.write(number, offset, packet)

    def write(self, number: int, offset: int, packet: EncodedPacket) -> EncodedPacket:
        """Write a packet at a file offset; return it as it is stored, sealed if all are."""
        if self._sealer is not None:
            packet = self._sealed(self._sealer, number, packet)
        started = perf_counter_ns()
        self._slots.write_packet(offset, packet.kinds, packet.payload, packet.encoding)
        self._written_bytes += packet.stored_size
        self._in_batch += packet.stored_size
        self._write_ns += perf_counter_ns() - started
        return packet

    def _sealed(self, sealer: PacketSealer, number: int, packet: EncodedPacket) -> EncodedPacket:
        sealed = sealer.seal(number, packet.encoding, packet.kinds, packet.payload)
        stored = sealed.stored
        if packet.encoding == Encoding.RAW:  # its pages go to their places
            stored = np.frombuffer(stored, np.uint8).reshape(-1, PAGE_SIZE)
        return packet._replace(
            payload=stored, stored_checksum=sealed.checksum, nonce=sealed.nonce, tag=sealed.tag
        )

    def write_back_slots(self, task: Task) -> None:
        """Start writing a batch's slots to disk, in the fixed layout."""
        self.write_back(self._plan.slot_offset(task.first), task.count * self._plan.packet_size)

    def write_back(self, offset: int, length: int) -> None:
        """Start writing a range to disk, and if paced, wait for an older one."""
        started = perf_counter_ns()
        if self._awake is None:
            self._slots.start_writing_back(offset, length)
        else:
            self._write_back_paced(self._awake, offset, length)
        self._write_ns += perf_counter_ns() - started

    def _write_back_paced(self, awake: ThreadTime, offset: int, length: int) -> None:
        # In this order, so that losing the processor between two clocks looks like less sleep.
        awake_ns, started = awake.ns(), perf_counter_ns()
        self._slots.start_writing_back(offset, length)
        self._written.append((offset, length, self._in_batch))
        self._batches += 1
        self._in_batch = 0
        if len(self._written) > batches_ahead(self._batches):
            offset, length, stored = self._written.popleft()
            self._slots.wait_for_disk(offset, length)
            self._drained_bytes += stored
        taken = perf_counter_ns() - started
        self._wait_ns += max(0, taken - (awake.ns() - awake_ns))

    def write_batch(self, task: Task, batch: Batch, row: Row) -> None:
        """Write records and page digests of a batch whose packets are written."""
        records = empty_records(task.first, task.count, self._plan.packet_size)
        batch.fill(records)
        self._finish(records)
        if self._tidies:
            self._slots.tidy(records, batch.page_digests)
        self._slots.write_page_digests(task.first, batch.page_digests)
        self._slots.write_records(records)
        count_packets(row, records, 1)
        self.count_ram(task, row)

    def _finish(self, records: Records) -> None:
        if self._sealer is not None:
            self._sealer.hide_digests(records)
        seal_records(records)

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
            batch.add(0, *self.write_to_slot(number, packet))
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
        """
        Return what a packet's encoding made, written before.

        :raises CorruptSnapshotError: it is not there any more
        """
        stored = self._slots.read_packet(packet)
        if len(stored) != packet.stored_size or crc32(stored) != packet.stored_checksum:
            message = "stored bytes written before are not there any more"
            raise CorruptSnapshotError(message, packet=packet.packet)
        return stored if self._sealer is None else self._sealer.open(packet, stored)

    def read_page_digests(self, packet: StoredPacket) -> bytes:
        """
        Return the digests of all pages of a full packet written before.

        :raises CorruptSnapshotError: they are not there any more
        """
        stored = self._slots.read_page_digests(packet.packet)
        if crc32(stored) != packet.page_digests_checksum:
            message = "page digests written before are not there any more"
            raise CorruptSnapshotError(message, packet=packet.packet)
        if self._sealer is None:
            return stored
        nonce, tag = packet.nonce, packet.page_digests_tag
        return self._sealer.open_page_digests(packet.packet, nonce, tag, stored)

    @property
    def file_size(self) -> int:
        """Size of the file now."""
        return self._slots.file_size

    def write_empty(self, task: Task, row: Row) -> None:
        """Write records of a batch without pages, for packets to come."""
        records = empty_records(task.first, task.count, self._plan.packet_size)
        seal_records(records)
        self._slots.write_records(records)
        count_packets(row, records, 1)

    def read_records(self, task: Task) -> Records:
        """Return the records of a batch written before."""
        return self.with_digests(self.read_stored_records(task))

    def read_stored_records(self, task: Task) -> Records:
        """Return the same as they are stored: digests of encrypted packets are encrypted."""
        return self._slots.read_records(task.first, task.count)

    def with_digests(self, records: Records) -> Records:
        """Decrypt the digests of stored records, and return these."""
        if self._sealer is not None:
            self._sealer.hide_digests(records)
        return records

    def replace_records(self, before: Records, records: Records, row: Row) -> None:
        """Write the records of a batch with replaced packets."""
        self._finish(records)
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
        batch.add(0, *self.write_to_slot(number, packet))
        batch.fill(fresh)
        self._slots.free_rest(number, packet.mask, packet.stored_size, packet.encoding)
        if self._has_digests:
            none = {0: bytes(page_digests_size(self._plan.packet_size))}
            self._slots.write_page_digests(number, batch.page_digests or none)
        return fresh
