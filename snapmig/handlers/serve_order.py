"""The order in which sections go out: those asked for first, those of a huge page together."""

from __future__ import annotations

from collections import deque

from snapmig.handlers.serve import ZEROS
from snapmig.workers.tasks import Task

__all__ = ("Sections", "Unit")


class Unit:
    """
    Sections that go out one after the other, with nothing between them.

    :param task: a packet, several without pages, or the packets of a huge page: one by one if zero
        pages are wanted
    :param asked: the guest waits for it
    :ivar buffers: of sections not yet sent, in their order
    :ivar lengths: of those that are made, by buffer
    """

    def __init__(self, task: Task, *, asked: bool) -> None:
        self._task = task
        self._left = task.packets[:: 1 if task.kind & ZEROS else task.count]
        self.asked = asked
        self.buffers: deque[int] = deque()
        self.lengths: dict[int, int] = {}

    @property
    def is_given(self) -> bool:
        """True if workers have been given all of it."""
        return not self._left

    def give(self, buffer: int) -> Task:
        """Return the next task, with a buffer for its section."""
        first, self._left = self._left[0], self._left[1:]
        self.buffers.append(buffer)
        return self._task._replace(first=first, count=self._count, argument=buffer)

    @property
    def _count(self) -> int:
        return 1 if self._task.kind & ZEROS else self._task.count


class Sections:
    """
    Sections with a buffer each, which is free again once they are sent.

    A unit may have more sections than there are buffers: its other sections find one as long as
    nothing else is given to workers before the last of them.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._units: dict[int, Unit] = {}
        self._asked: deque[Unit] = deque()
        self._others: deque[Unit] = deque()
        self._current: Unit | None = None

    @property
    def available(self) -> bool:
        """True if there is a free buffer."""
        return bool(self._free)

    @property
    def within(self) -> bool:
        """True while a unit is partly sent."""
        return self._current is not None

    @property
    def unsent(self) -> bool:
        """True if buffers are in use."""
        return bool(self._units)

    def give(self, unit: Unit) -> Task:
        """Return a unit's next task, with a buffer of its own."""
        buffer = self._free.pop()
        self._units[buffer] = unit
        return unit.give(buffer)

    def made(self, buffer: int, length: int) -> None:
        """Take a section, to be sent unless it is empty."""
        unit = self._units[buffer]
        unit.lengths[buffer] = length
        while unit.buffers and unit.lengths.get(unit.buffers[0]) == 0:
            self.sent(unit.buffers[0])
        if length and unit.buffers[0] == buffer and unit is not self._current:
            (self._asked if unit.asked else self._others).append(unit)

    def ready(self) -> tuple[int, int] | None:
        """Return the next section to be sent, as buffer and length, None if there is none."""
        if self._current is None and (waiting := self._asked or self._others):
            self._current = waiting.popleft()
        unit = self._current
        if unit is None or not unit.buffers or unit.buffers[0] not in unit.lengths:
            return None
        return unit.buffers[0], unit.lengths[unit.buffers[0]]

    def sent(self, buffer: int) -> None:
        """Use a buffer again."""
        unit = self._units.pop(buffer)
        unit.buffers.popleft()
        del unit.lengths[buffer]
        self._free.append(buffer)
        if unit is self._current and unit.is_given and not unit.buffers:
            self._current = None
