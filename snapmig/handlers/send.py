"""
A worker that sends a snapshot's packets over one channel of a migration.

Zero pages are left out: the destination's memory is new, or the main connection tells of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from snapmig.chains.reader import ReadPlan, open_chain
from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.errors import SnapmigError, WorkerDiedError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.counters import Counter
from snapmig.handlers.load_tasks import LoadTasks
from snapmig.migration.compression import WireCompression
from snapmig.migration.deflater import Deflater, make_deflater
from snapmig.migration.packing import PACKET_PAGES
from snapmig.migration.sender import STILL_S, ChannelSender
from snapmig.migration.stream_sender import StreamParts, StreamSender
from snapmig.migration.tls import SecureConnection
from snapmig.pages import Bytes
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("BarrierTasks", "PageTasks", "SendHandler", "SendPlan")


_STREAMS = {WireCompression.ZSTD: Encoding.ZSTD, WireCompression.ZLIB: Encoding.DEFLATE}
"""Encodings of packets that are sent without being decoded."""


class SendKind(IntEnum):
    """Kinds of tasks for a worker that sends."""

    SEND = 0
    """Send packets; the number of :class:`~snapmig.handlers.load.LoadTasks`' own."""
    SYNC = 1
    """Send ``argument`` barriers on channel ``first``; a worker opens it with the first ones."""


class SendPlan(NamedTuple):
    """
    Everything a worker needs to send, picklable.

    :param read: the snapshot and its parents, the youngest first
    :param blocks: names of its RAM blocks as the destination knows them
    :param compression: of the payloads
    :param still_s: seconds in which the destination must take something
    :param secure: channels with TLS; a forked worker has them, others can't get them
    :param stream: bytes around the pages, if they go over the main connection
    """

    read: Sequence[ReadPlan]
    blocks: Sequence[bytes]
    compression: WireCompression
    still_s: float = STILL_S
    secure: Sequence[SecureConnection] = ()
    stream: StreamParts | None = None


class SendHandler:
    """Decodes packets, or takes their stored streams, and sends them."""

    def __init__(self, plan: SendPlan) -> None:
        self._plan = plan
        self._chain = open_chain(plan.read)
        self._geometry: Geometry = self._chain.snapshot.geometry
        self._deflater: Deflater = make_deflater(plan.compression)
        self._passed_on = _STREAMS.get(plan.compression)
        self._channels: dict[int, ChannelSender] = {}

    def run(self, task: Task, row: Row) -> None:
        """Send a batch of packets, or barriers."""
        if task.kind == SendKind.SYNC:
            self._sync(task)
            return
        packets = self._chain.packets(task.first, task.count)
        others = [packet for packet in packets if not self._pass_on(packet, row)]
        for found in self._chain.load_all(others):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            mask = found.packet.in_use
            self._send_pages(found.packet.packet, np.flatnonzero(mask), found.pages, row)
        self._count(task, packets, row)

    def _sync(self, task: Task) -> None:
        if task.first not in self._channels:
            self._channels[task.first] = self._open(task)
        self._channels[task.first].sync(task.argument)

    def _open(self, task: Task) -> ChannelSender:
        plan = self._plan
        connection = plan.secure[task.first] if plan.secure else task.descriptor
        if plan.stream is not None:
            return StreamSender(connection, plan.stream, plan.still_s)
        return ChannelSender(connection, task.first, plan.compression, plan.still_s)

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        if task.kind == SendKind.SEND:
            self._chain.expect(task.first, task.count)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _pass_on(self, packet: StoredPacket, row: Row) -> bool:
        if packet.encoding != self._passed_on:
            return False
        if packet.needs_parent or packet.stored_pages > PACKET_PAGES:
            return False
        payload = self._deflater.stored(self._stored(packet))
        if payload is None:  # one of an accelerator, and so are likely all others
            self._passed_on = None
            return False
        self._send(packet.packet, np.flatnonzero(packet.mask), payload, row)
        return True

    def _stored(self, packet: StoredPacket) -> bytes:
        snapshot = self._chain.snapshot
        try:
            return snapshot.stored(packet)  # checksums compared
        except SnapmigError as error:
            error.path = error.path or snapshot.shown
            raise

    def _send_pages(self, number: int, places: Any, pages: Bytes, row: Row) -> None:
        for at in range(0, len(places), PACKET_PAGES):
            part = pages[at : at + PACKET_PAGES]
            self._send(number, places[at : at + PACKET_PAGES], self._deflater.pages(part), row)

    def _send(self, number: int, places: Any, payload: Any, row: Row) -> None:
        place = self._geometry.place(number)
        inside = place.ram_offset - self._geometry.block_start(place.block)
        offsets = inside + places.astype(np.int64) * PAGE_SIZE
        channel = next(iter(self._channels.values()))
        row[Counter.WRITTEN_BYTES] += channel.send(self._plan.blocks[place.block], offsets, payload)

    def _count(self, task: Task, packets: Sequence[StoredPacket], row: Row) -> None:
        row[Counter.RAM_BYTES] += len(self._geometry.ram_range(task.packets))
        row[Counter.ENGINE_FAILURES] = self._chain.engine_failures
        row[Counter.DATA_PAGES] += sum(packet.pages for packet in packets)


class BarrierTasks:
    """
    Hands out barriers on all channels, each to the worker that has the channel.

    No page is sent before all channels have had their first barrier: QEMU takes none until then,
    and workers shared by several guests would wait for each other for ever.

    :param channels: descriptors, for workers that don't have them yet; else -1
    :param workers: their number
    :param count: barriers on each channel
    """

    def __init__(self, channels: Sequence[int], workers: int, count: int) -> None:
        self._left: dict[int, list[Task]] = {}
        for number, descriptor in enumerate(channels):
            task = Task(SendKind.SYNC, number, 1, count, descriptor)
            self._left.setdefault(number % workers, []).append(task)

    @property
    def waiting(self) -> bool:
        """True if a worker has still to come for its barriers."""
        return any(self._left.values())

    def next_for(self, worker: int) -> Task | None:
        """Return the barriers on a worker's channel."""
        left = self._left.get(worker)
        return left.pop(0) if left else None

    def finished(self, _worker: int, _task: Task, _reply: Any) -> list[tuple[int, Task]]:
        """Do nothing."""
        return []

    def lost(self, worker: int, _tasks: Sequence[Task]) -> None:
        """
        Note the death of a worker: its channel is lost with it.

        :raises WorkerDiedError: it had one
        """
        if worker in self._left:
            raise _lost(worker)


class PageTasks:
    """
    Hands out packets to workers that have a channel.

    :param load: all packets
    :param channels: their number
    """

    def __init__(self, load: LoadTasks, channels: int) -> None:
        self._load = load
        self._channels = channels
        self._next = load.next_for(0)

    @property
    def waiting(self) -> bool:
        """True if there are packets left."""
        return self._next is not None

    def next_for(self, worker: int) -> Task | None:
        """Return a worker's next batch."""
        if worker >= self._channels:
            return None
        task, self._next = self._next, self._load.next_for(worker)
        return task

    def finished(self, _worker: int, _task: Task, _reply: Any) -> list[tuple[int, Task]]:
        """Do nothing."""
        return []

    def lost(self, worker: int, _tasks: Sequence[Task]) -> None:
        """
        Note the death of a worker: its channel is lost with it.

        :raises WorkerDiedError: it had one
        """
        if worker < self._channels:
            raise _lost(worker)


def _lost(worker: int) -> WorkerDiedError:
    return WorkerDiedError(f"worker {worker} died, and with it what it was sending")
