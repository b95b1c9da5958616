"""Saving batches at places known beforehand: slots of the fixed layout, and holes."""

from __future__ import annotations

from snapmig.handlers.packet_store import PacketStore
from snapmig.handlers.pipeline import PacketPipeline
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("SaveEmpty", "SaveFixed")


class SaveEmpty:
    """Writes the records of packets in a hole of the image."""

    def __init__(self, store: PacketStore) -> None:
        self._store = store

    def run(self, task: Task, row: Row) -> int:
        """Save a batch."""
        self._store.write_batch(task, self._store.new_batch(), row)
        return 0


class SaveFixed:
    """Encodes packets and writes each at once, while it is still in the processor's cache."""

    def __init__(self, pipeline: PacketPipeline, store: PacketStore) -> None:
        self._pipeline = pipeline
        self._store = store

    def run(self, task: Task, row: Row) -> int:
        """Save a batch."""
        batch = self._store.new_batch()
        for at, packet in self._pipeline.encode(task, batch):
            batch.add(at, *self._store.write_to_slot(task.first + at, packet))
        self._pipeline.release(task)
        self._store.write_batch(task, batch, row)
        self._store.write_back_slots(task)
        return 0
