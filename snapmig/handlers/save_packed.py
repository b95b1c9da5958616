"""
Saving batches in the packed layout, in two steps.

A packet's place depends on all packets before it: the worker encodes a batch and reports its size,
and writes it when the parent has assigned a place.
"""

from __future__ import annotations

from snapmig.encodings.packet import EncodedPacket
from snapmig.handlers.packet_store import PacketStore
from snapmig.handlers.pipeline import PacketPipeline
from snapmig.handlers.records import Batch
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("SavePacked",)

Packets = list[EncodedPacket | None]


class SavePacked:
    """Encodes batches, holds them, and writes them to their places."""

    def __init__(self, pipeline: PacketPipeline, store: PacketStore) -> None:
        self._pipeline = pipeline
        self._store = store
        self._held: dict[int, tuple[Batch, Packets]] = {}

    def encode(self, task: Task, row: Row) -> int:
        """Encode a batch; return its stored bytes. One without any is saved at once."""
        batch = self._store.new_batch()
        packets: Packets = [None] * task.count
        for at, packet in self._pipeline.encode(task, batch):
            packets[at] = packet.kept()
        self._pipeline.release(task)
        waiting = sum(packet.stored_size for packet in packets if packet is not None)
        self._held[task.first] = (batch, packets)
        if not waiting:
            self.place(task, row)
        return waiting

    def place(self, task: Task, row: Row) -> int:
        """Write a held batch at the file offset in the task's argument."""
        batch, packets = self._held.pop(task.first)
        offset = task.argument
        for at, packet in enumerate(packets):
            if packet is None:
                continue
            if not packet.stored_size:
                batch.add(at, 0, packet)
                continue
            batch.add(at, offset, self._store.write(task.first + at, offset, packet))
            offset += packet.stored_size
        self._store.write_batch(task, batch, row)
        if offset > task.argument:
            self._store.write_back(task.argument, offset - task.argument)
        return 0
