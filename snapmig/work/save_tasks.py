"""Which batches of packets a save hands out, and where those of a packed snapshot are placed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import IntEnum
from time import perf_counter_ns

from snapmig.container.format import Layout
from snapmig.container.slots import SlotPlan
from snapmig.fleet.tasks import Task
from snapmig.geometry import Geometry

__all__ = ("Kind", "SaveTasks")

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


class SaveTasks:
    """
    Hands out an image's packets in order, holes in large batches.

    :param next_data: gives the first RAM offset from one on that is not in a hole
    :param again: all packets were saved before, and only those that changed are wanted
    :param level: asked for each batch
    :param has_room: whether more may be written now
    :param advance: told the offset up to which all packed packets are written
    :ivar waited_ns: nanoseconds in which there was no room
    """

    def __init__(
        self,
        geometry: Geometry,
        slots: SlotPlan,
        next_data: Callable[[int], int | None],
        *,
        again: bool = False,
        level: Callable[[], int] = lambda: 1,
        has_room: Callable[[], bool] = lambda: True,
        advance: Callable[[int], None] = lambda _end: None,
    ) -> None:
        kinds = (Kind.REFRESH_EMPTY, Kind.REFRESH) if again else (Kind.EMPTY, Kind.ENCODE)
        self._tasks = _plan_tasks(geometry, next_data, *kinds)
        self._level = level
        self._packed = slots.layout == Layout.PACKED
        self._offset = slots.data_offset
        self._order: deque[int] = deque()
        self._sized: dict[int, tuple[int, Task, int]] = {}
        self._held: dict[int, int] = {}
        self._has_room = has_room
        self._advance = advance
        self._placed: deque[tuple[int, int]] = deque()
        self._written: set[int] = set()
        self.waiting = False
        self.waited_ns = 0
        self._since = 0

    @property
    def end(self) -> int:
        """The file offset after the last place that was given out, in the packed layout."""
        return self._offset

    def next_for(self, worker: int) -> Task | None:
        """Return the next batch, unless the worker holds enough of them without a place."""
        if self._held.get(worker, 0) >= HELD_BATCHES:
            return None
        if not self._may_go_on():
            return None
        task = next(self._tasks, None)
        if task is None:
            return None
        if self._packed and task.kind == Kind.ENCODE:
            self._order.append(task.first)
            self._held[worker] = self._held.get(worker, 0) + 1
        return replace(task, argument=self._level())

    def _may_go_on(self) -> bool:
        room, now = self._has_room(), perf_counter_ns()
        if self.waiting:
            self.waited_ns += now - self._since
        self.waiting, self._since = not room, now
        return room

    def finished(self, worker: int, task: Task, reply: int) -> list[tuple[int, Task]]:
        """Take a batch's size; return the batches whose places are known now."""
        if task.kind == Kind.PLACE:
            self._note_written(task.first)
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
                self._placed.append((batch.first, self._offset))
        return placed

    def _note_written(self, first: int) -> None:
        # Workers are done with their places in any order: only the first ones in a row count.
        self._written.add(first)
        end = None
        while self._placed and self._placed[0][0] in self._written:
            first, end = self._placed.popleft()
            self._written.remove(first)
        if end is not None:
            self._advance(end)


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
