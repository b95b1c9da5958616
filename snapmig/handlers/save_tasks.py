"""Batches of packets handed out by a save, and their places in the packed layout."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from time import perf_counter_ns
from typing import NamedTuple

from snapmig.container.format import Layout
from snapmig.container.slots import SlotPlan
from snapmig.errors import SnapmigError
from snapmig.geometry import Geometry
from snapmig.handlers.batch_size import BatchSizes
from snapmig.workers.tasks import Task

__all__ = ("FIRST_LOOK", "SAMPLE_LOOK", "SECOND_LOOK", "Kind", "Look", "SaveTasks")

EMPTY_BATCH_PACKETS = 4096

HELD_BATCHES = 3
"""Encoded batches of a packed snapshot held by one worker until their places are known."""

NOBODY = -1


class Kind(IntEnum):
    """Kinds of tasks for a save worker."""

    EMPTY = 0
    ENCODE = 1
    PLACE = 2
    REFRESH = 3
    REFRESH_EMPTY = 4
    SAMPLE = 5


class Look(NamedTuple):
    """
    Task kinds for one pass over an image.

    :param hole: the kind for packets in its holes; None: skip them
    """

    data: Kind
    hole: Kind | None


FIRST_LOOK = Look(Kind.ENCODE, Kind.EMPTY)
SECOND_LOOK = Look(Kind.REFRESH, Kind.REFRESH_EMPTY)
"""A pass over packets saved before: write the changed ones again."""
SAMPLE_LOOK = Look(Kind.SAMPLE, None)
"""A pass over some packets, to see if any changed."""


class SaveTasks:
    """
    Hands out an image's packets in order, holes in large batches.

    :param next_data: returns the first RAM offset, from a given one on, outside a hole
    :param look: task kinds of this pass
    :param argument: called for the argument of each batch: a codec in most passes
    :param has_room: returns True if more may be written now
    :param advance: called with the offset up to which all packed packets are written
    :ivar waited_ns: nanoseconds without room
    :param part: limit the pass to these packets
    :param batch: called with the packets left for the number in the next batch
    """

    def __init__(
        self,
        geometry: Geometry,
        slots: SlotPlan,
        next_data: Callable[[int], int | None],
        *,
        look: Look = FIRST_LOOK,
        argument: Callable[[], int] = lambda: 0,
        has_room: Callable[[], bool] = lambda: True,
        advance: Callable[[int], None] = lambda _end: None,
        part: range | None = None,
        batch: Callable[[int], int] | None = None,
    ) -> None:
        batch = BatchSizes(geometry.packet_size) if batch is None else batch
        self._tasks = _plan_tasks(geometry, next_data, part, batch, look)
        self._argument = argument
        self._packed = slots.layout == Layout.PACKED
        self._offset = slots.data_offset
        self._order: deque[int] = deque()
        self._held: dict[int, int] = {}
        self._encoded: dict[int, _Encoded] = {}
        self._again: deque[Task] = deque()
        self._has_room = has_room
        self._advance = advance
        self._placed: deque[tuple[int, int]] = deque()
        self.waiting = False
        self.waited_ns = 0
        self._since = 0

    @property
    def end(self) -> int:
        """File offset after the last place assigned, in the packed layout."""
        return self._offset

    def next_for(self, worker: int) -> Task | None:
        """Return the next batch, unless the worker holds too many without a place."""
        if self._again:  # places of later batches depend on it
            return self._given(worker, self._again.popleft())
        if self._held.get(worker, 0) >= HELD_BATCHES:
            return None
        if not self._may_go_on():
            return None
        task = next(self._tasks, None)
        if task is None:
            return None
        if task.kind == Kind.EMPTY:
            return task  # a hole needs no codec
        if self._packed and task.kind == Kind.ENCODE:
            self._order.append(task.first)
        return self._given(worker, task._replace(argument=self._argument()))

    def _may_go_on(self) -> bool:
        room, now = self._has_room(), perf_counter_ns()
        if self.waiting:
            self.waited_ns += now - self._since
        self.waiting, self._since = not room, now
        return room

    def finished(self, worker: int, task: Task, reply: int) -> list[tuple[int, Task]]:
        """Take a batch's size; return the batches that can be placed now."""
        if task.kind == Kind.PLACE:
            self._note_written(task.first)
        if not self._packed or task.kind != Kind.ENCODE:
            return []
        if task.first in self._encoded:
            return [self._encoded_again(worker, task, reply)]
        self._encoded[task.first] = _Encoded(worker, task, reply)
        placed = []
        while self._order and self._order[0] in self._encoded:
            batch = self._encoded[self._order.popleft()]
            self._held[batch.worker] -= 1
            if batch.size:
                batch.offset = self._offset
                self._offset += batch.size
                self._placed.append((batch.task.first, self._offset))
                placed.append((batch.worker, batch.place))
            else:
                del self._encoded[batch.task.first]
        return placed

    def lost(self, worker: int, tasks: Sequence[Task]) -> None:
        """
        Hand out a dead worker's packets again.

        These are its tasks, and its encoded batches without a place or not yet told of it.
        """
        self._held.pop(worker, None)
        self._again.extend(task for task in tasks if task.kind != Kind.PLACE)
        for first, batch in list(self._encoded.items()):
            if batch.worker == worker:
                batch.worker = NOBODY
                self._again.append(batch.task)
                if batch.offset is None:
                    del self._encoded[first]

    def _given(self, worker: int, task: Task) -> Task:
        if self._packed and task.kind == Kind.ENCODE:
            self._held[worker] = self._held.get(worker, 0) + 1
        return task

    def _encoded_again(self, worker: int, task: Task, size: int) -> tuple[int, Task]:
        # Its worker died after encoding it, and the batches behind it have their places already.
        batch = self._encoded[task.first]
        if size != batch.size:
            message = f"{task.shown} have {size} bytes when compressed again, {batch.size} before"
            raise SnapmigError(message)
        batch.worker = worker
        self._held[worker] -= 1
        return worker, batch.place

    def _note_written(self, first: int) -> None:
        # Workers finish their places in any order: only an unbroken row from the start counts.
        del self._encoded[first]
        end = None
        while self._placed and self._placed[0][0] not in self._encoded:
            _first, end = self._placed.popleft()
        if end is not None:
            self._advance(end)


class _Encoded:
    # A batch of a packed snapshot, encoded and not yet written.
    def __init__(self, worker: int, task: Task, size: int) -> None:
        self.worker = worker
        self.task = task
        self.size = size
        self.offset: int | None = None

    @property
    def place(self) -> Task:
        return Task(Kind.PLACE, self.task.first, self.task.count, self.offset or 0)


def _plan_tasks(
    geometry: Geometry,
    next_data: Callable[[int], int | None],
    part: range | None,
    batch: Callable[[int], int],
    look: Look,
) -> Iterator[Task]:
    stop = geometry.packet_count if part is None else part.stop
    for number in range(len(geometry.blocks)):
        packets = geometry.block_packets(number)
        if part is not None:
            packets = range(max(packets.start, part.start), min(packets.stop, part.stop))
        packet = packets.start
        while packet < packets.stop:
            found = next_data(geometry.place(packet).ram_offset)
            end = geometry.block_start(number) + geometry.blocks[number].size
            with_data = packets.stop if found is None or found >= end else geometry.packet_at(found)
            if with_data > packet:
                count = min(with_data - packet, EMPTY_BATCH_PACKETS)
                if look.hole is not None:
                    yield Task(look.hole, packet, count)
            else:
                count = min(batch(stop - packet), packets.stop - packet)
                yield Task(look.data, packet, count)
            packet += count
