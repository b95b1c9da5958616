"""Second looks at saved packets: to save those that changed again, or to count them."""

from __future__ import annotations

from snapmig.handlers.counters import Counter
from snapmig.handlers.packet_store import PacketStore
from snapmig.handlers.pipeline import PacketPipeline
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("Refresh", "Sample")


class Refresh:
    """
    Saves changed packets of a running guest again, in the fixed layout.

    :param holes: batches lie in holes of the image, so only packets that had pages can differ
    """

    def __init__(self, pipeline: PacketPipeline, store: PacketStore, *, holes: bool) -> None:
        self._pipeline = pipeline
        self._store = store
        self._holes = holes

    def run(self, task: Task, row: Row) -> int:
        """Refresh a batch; its pages stay mapped for the next look, which is in the pause."""
        records = self._store.read_records(task)
        if self._holes and not records["kinds"].any():
            self._store.count_ram(task, row)
            return 0
        before = records.copy()
        count = 0
        changed = self._pipeline.changed(task, before)
        for at, packet in self._pipeline.encode_changed(task, changed):
            records[at] = self._store.replace(task.first + at, packet)[0]
            count += 1
        if count:
            self._store.replace_records(before, records, row)
        row[Counter.CHANGED_PACKETS] += count
        self._store.count_ram(task, row)
        return 0


class Sample:
    """Counts changed packets among some of a batch, as far apart as the task's argument says."""

    def __init__(self, pipeline: PacketPipeline, store: PacketStore) -> None:
        self._pipeline = pipeline
        self._store = store

    def run(self, task: Task, row: Row) -> int:
        """Look at a batch again."""
        records = self._store.read_records(task)
        step = task.argument
        for at in range(-task.first % step, task.count, step):
            one = task._replace(first=task.first + at, count=1)
            changed = self._pipeline.changed(one, records[at : at + 1])
            row[Counter.SAMPLED_PACKETS] += 1
            row[Counter.CHANGED_PACKETS] += sum(1 for _ in changed)
        self._pipeline.release(task)
        return 0
