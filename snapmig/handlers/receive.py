"""
A worker that receives a guest: packets from its channels, encoded and written as they come.

A packet received whole goes to its slot at once, unless the guest stands still for it. Pages of a
packet received in part, or then, are staged, and merged into their slots while all workers rest:
when a table is full, and at the end. Until then all that comes for such a packet is staged. Between
two barriers QEMU sends no page twice (7.2 may, where either is good), so within a round no order
matters; of several rounds the latest counts.

Without channels the parent process gathers the packets of one stream, and workers store them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np

from snapmig.chains.reader import ReadPlan
from snapmig.container.slots import SlotPlan
from snapmig.encodings.compressions import PacketSettings, ReadSettings
from snapmig.encodings.encoder import PacketEncoder
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.comparison import compare_with
from snapmig.handlers.counters import Counter
from snapmig.handlers.packet_buffers import PacketBuffers
from snapmig.handlers.packet_store import PacketStore
from snapmig.handlers.pipeline import PageEncoding
from snapmig.handlers.received_slots import ReceivedSlots, is_stored
from snapmig.handlers.staging import (
    Numbers,
    PacketNumbers,
    StagedPages,
    StagedReader,
    Waiting,
)
from snapmig.migration.channel import Channel, Received
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import Blocks
from snapmig.pages import Bytes
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("Merge", "Outcome", "ReceiveHandler", "ReceiveKind", "ReceivePlan", "Store")

_RADIX = 1 << 10
"""More than there are tables or codecs."""

_IDLE_S = 0.01
"""
Seconds that a worker waits for a packet before it asks for another task.

A worker shared by several guests has other channels meanwhile: a live save of two by one worker
took 38 s with 0.05, 9 s with 0.01.
"""


class ReceiveKind(IntEnum):
    """Kinds of tasks for a worker that receives."""

    EMPTY = 0
    """Write records of packets without pages, because those of zeros may never come."""
    RECEIVE = 1
    """Take up to ``count`` packets from channel ``first``; the argument is the codec."""
    MERGE = 2
    """Merge staged pages into packets; the argument is a :class:`Merge`."""
    STORE = 3
    """Store the pages of a packet in a buffer; the argument is a :class:`Store`."""
    ZERO = 4
    """Count packets that are zero."""


class Outcome(IntEnum):
    """Reply to a task of kind RECEIVE."""

    MORE = 0
    IDLE = 1
    """Nothing came for a moment."""
    SYNC = 2
    """The channel has reached a barrier."""
    FULL = 3
    """The worker can stage no more pages."""
    ENDED = 4
    """The source has closed the channel."""


class Merge(NamedTuple):
    """
    The argument of a task of kind MERGE.

    :param generation: another number after each change of the tables
    :param tables: the first of them and the one after the last
    :param codec: its place
    """

    generation: int
    tables: tuple[int, int]
    codec: int

    def pack(self) -> int:
        """Return all of it as a number."""
        number = self.generation
        for value in (*self.tables, self.codec):
            number = number * _RADIX + value
        return number

    @classmethod
    def unpack(cls, number: int) -> Merge:
        """Return it from a number."""
        number, codec = divmod(number, _RADIX)
        number, stop = divmod(number, _RADIX)
        generation, first = divmod(number, _RADIX)
        return cls(generation, (first, stop), codec)


class Store(NamedTuple):
    """The argument of a task of kind STORE."""

    buffer: int
    codec: int

    def pack(self) -> int:
        """Return all of it as a number."""
        return self.buffer * _RADIX + self.codec

    @classmethod
    def unpack(cls, number: int) -> Store:
        """Return it from a number."""
        return cls(*divmod(number, _RADIX))


class ReceivePlan(NamedTuple):
    """
    Everything a worker needs to receive, picklable.

    :param parents: snapshots whose pages need not be stored again, the youngest first
    :param deltas: allow pages stored as differences from the parent's
    :param tables: paths of the staged pages: one for each worker, and the parent process's
    :param waiting: path of the marks of packets with staged pages; empty without channels
    :param buffers: path of the packets of a single stream, instead
    :param target_page: bytes of a page of the guest's processors
    :param secure: channels with TLS; a forked worker has them, others can't get them
    """

    parents: Sequence[ReadPlan]
    geometry: Geometry
    slots: SlotPlan
    settings: PacketSettings
    tables: Sequence[str] = ()
    waiting: str = ""
    buffers: str | None = None
    target_page: int = PAGE_SIZE
    paced: bool = False
    deltas: bool | None = None
    secure: Sequence[SecureConnection] = ()


class ReceiveHandler:
    """Receives packets and merges staged ones."""

    def __init__(self, plan: ReceivePlan) -> None:
        comparison = compare_with(plan.parents, plan.slots, deltas=plan.deltas)
        self._encoding = PageEncoding(PacketEncoder(plan.settings), comparison)
        self._store = PacketStore(plan.slots, plan.geometry, paced=plan.paced)
        reading = ReadSettings(window_bits=plan.settings.deflate.window_bits)
        slots = ReceivedSlots(self._encoding, self._store, plan.geometry, reading, plan.parents)
        self._handlers: dict[int, Callable[[Task, Row], int]] = {
            ReceiveKind.EMPTY: self._write_empty,
            ReceiveKind.RECEIVE: _Receive(plan, slots).run,
            ReceiveKind.MERGE: _Merge(plan, slots).run,
            ReceiveKind.ZERO: self._count_zero,
        }
        if plan.buffers is not None:
            self._handlers[ReceiveKind.STORE] = _Store(plan, plan.buffers, slots).run

    def run(self, task: Task, row: Row) -> int:
        """Do one task; return an :class:`Outcome`."""
        started = perf_counter_ns()
        outcome = self._handlers[task.kind](task, row)
        row[Counter.WORK_NS] += perf_counter_ns() - started
        self._store.count(row)
        self._encoding.count(row)
        return outcome

    def expect(self, task: Task) -> None:
        """Do nothing: nobody knows what comes next."""

    def notes(self) -> Sequence[str]:
        """Return new remarks on failures of an engine."""
        return self._encoding.notes()

    def _write_empty(self, task: Task, row: Row) -> int:
        self._store.write_empty(task, row)
        return Outcome.MORE

    def _count_zero(self, task: Task, row: Row) -> int:
        self._store.count_ram(task, row)
        return Outcome.MORE


class _Receive:
    # Packets of the channels that this worker has.
    def __init__(self, plan: ReceivePlan, slots: ReceivedSlots) -> None:
        self._plan = plan
        self._slots = slots
        self._blocks = Blocks(plan.geometry, plan.target_page)
        self._packets = PacketNumbers(plan.geometry)
        self._channels: dict[int, Channel] = {}
        self._tables: dict[int, StagedPages] = {}
        self._waiting = Waiting(plan.waiting)
        self._most = self._blocks.pages_per_packet * plan.target_page // PAGE_SIZE

    def run(self, task: Task, row: Row) -> int:
        number = task.first
        if number not in self._channels:
            secure = self._plan.secure
            connection = secure[number] if secure else task.descriptor
            self._channels[number] = Channel(connection, number, self._blocks)
            self._tables[number] = StagedPages(self._plan.tables[number])
        channel, table = self._channels[number], self._tables[number]
        for _ in range(task.count):
            if table.room < self._most:
                return Outcome.FULL
            packet = channel.next(_IDLE_S)
            if packet is None:
                return Outcome.ENDED if channel.ended else Outcome.IDLE
            if len(packet.data) or len(packet.zeros):
                self._take(packet, table, task.argument, row)
            if packet.sync:
                table.round += 1
                return Outcome.SYNC
        return Outcome.MORE

    def _take(self, packet: Received, table: StagedPages, codec: int, row: Row) -> None:
        numbers, pages = self._small_pages(packet.data), packet.pages.reshape(-1, PAGE_SIZE)
        zeros = self._small_pages(packet.zeros)
        size = (len(numbers) + len(zeros)) * PAGE_SIZE
        row[Counter.RECEIVED_BYTES] += size
        row[Counter.RAM_BYTES] += size
        slot = self._only_slot(packet)
        if slot is not None:
            part = _Part(slot, numbers, pages, zeros)
            if not self._store_whole(part, codec, row):
                self._stage(part, np.full(len(zeros), slot), table)
            return
        data_slots, zero_slots = self._packets.of(numbers), self._packets.of(zeros)
        slots, counts = np.unique(np.concatenate([data_slots, zero_slots]), return_counts=True)
        for slot, count in zip(slots.tolist(), counts.tolist(), strict=True):
            if count == self._plan.geometry.place(slot).pages:
                own, own_zeros = data_slots == slot, zero_slots == slot
                part = _Part(slot, numbers[own], pages[own], zeros[own_zeros])
                if self._store_whole(part, codec, row):
                    numbers, pages, data_slots = numbers[~own], pages[~own], data_slots[~own]
                    zeros, zero_slots = zeros[~own_zeros], zero_slots[~own_zeros]
        self._stage(_Part(data_slots, numbers, pages, zeros), zero_slots, table)

    def _only_slot(self, packet: Received) -> int | None:
        # The usual case: all pages of a packet are in one slot.
        both = [pages for pages in (packet.data, packet.zeros) if len(pages)]
        first = self._plan.geometry.packet_at(min(int(pages.min()) for pages in both))
        last = self._plan.geometry.packet_at(max(int(pages.max()) for pages in both))
        return first if first == last else None

    def _small_pages(self, offsets: Numbers) -> Numbers:
        first = offsets // PAGE_SIZE
        several = self._plan.target_page // PAGE_SIZE
        if several == 1:
            return first
        return (first[:, None] + np.arange(several)).reshape(-1)

    def _store_whole(self, part: _Part, codec: int, row: Row) -> bool:
        # QEMU 7.2 may send the last page of a packet in the next one too, on another channel: two
        # workers may have the same packet whole if it is of a single page.
        slot = int(part.slots)
        place = self._plan.geometry.place(slot)
        whole = len(part.numbers) + len(part.zeros) == place.pages > 1
        if not whole or self._waiting.marks[slot]:
            return False
        if self._waiting.hurry:
            return False  # the guest stands still, and copying is faster than encoding
        record = self._slots.record(slot)
        inside = part.numbers - place.ram_offset // PAGE_SIZE
        pages = part.pages
        if len(part.zeros) or (inside[1:] < inside[:-1]).any():
            pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
            pages[inside] = part.pages
        if len(part.numbers) or is_stored(record):
            self._slots.put(Task(ReceiveKind.RECEIVE, slot, 1, codec), record, pages, row)
        return True

    def _stage(self, part: _Part, zero_slots: Numbers, table: StagedPages) -> None:
        # All pages of a packet without any are zero already.
        known = [
            slot
            for slot in np.unique(zero_slots).tolist()
            if self._waiting.marks[slot] or is_stored(self._slots.record(slot))
        ]
        if known:
            self._waiting.marks[known] = 1
            table.add_zeros(part.zeros[np.isin(zero_slots, known)])
        if len(part.numbers):
            self._waiting.marks[part.slots] = 1
            table.add(part.numbers, part.pages)


class _Part(NamedTuple):
    # Pages received for one packet, or several, by their numbers in RAM offsets.
    slots: int | Numbers
    numbers: Numbers
    pages: Bytes
    zeros: Numbers


class _Merge:
    # Staged pages of several tables into packets.
    def __init__(self, plan: ReceivePlan, slots: ReceivedSlots) -> None:
        self._geometry = plan.geometry
        self._slots = slots
        self._paths = plan.tables
        self._generation = -1
        self._tables: list[StagedReader] = []

    def run(self, task: Task, row: Row) -> int:
        merge = Merge.unpack(task.argument)
        if merge.generation != self._generation:
            first, stop = merge.tables
            self._tables = [StagedReader(path) for path in self._paths[first:stop]]
            self._generation = merge.generation
        for slot in task.packets:
            place = self._geometry.place(slot)
            first = place.ram_offset // PAGE_SIZE
            tables = [table for table in self._tables if table.has(first, place.pages)]
            if not tables:
                continue
            record = self._slots.record(slot)
            covered = np.unique(np.concatenate([t.numbers(first, place.pages) for t in tables]))
            if len(covered) == place.pages:
                pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
            else:
                pages = self._slots.pages(record)
            rounds = {each for table in tables for each in table.rounds(first, place.pages)}
            for each in sorted(rounds):
                for table in tables:
                    table.overlay(first, pages, each)
            self._slots.put(Task(task.kind, slot, 1, merge.codec), record, pages, row)
        return Outcome.MORE


class _Store:
    # Packets gathered by the parent.
    def __init__(self, plan: ReceivePlan, path: str, slots: ReceivedSlots) -> None:
        self._geometry = plan.geometry
        self._slots = slots
        self._buffers = PacketBuffers(path, plan.geometry.packet_pages)

    def run(self, task: Task, row: Row) -> int:
        number, codec = Store.unpack(task.argument)
        place = self._geometry.place(task.first)
        mask = self._buffers.masks[number, : place.pages]
        pages = self._buffers.pages[number, : place.pages]
        record = self._slots.record(task.first)
        if not mask.all():
            found = self._slots.pages(record)
            found[mask] = pages[mask]
            pages = found
        if not is_stored(record):
            row[Counter.RAM_BYTES] += place.pages * PAGE_SIZE
        self._slots.put(Task(task.kind, task.first, 1, codec), record, pages, row)
        return Outcome.MORE
