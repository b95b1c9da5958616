"""Tasks of a save whose destination can take no more, and their places."""

from __future__ import annotations

import pytest

from snapmig.container.format import Layout
from snapmig.container.slots import SlotPlan
from snapmig.geometry import Geometry, RamBlock
from snapmig.handlers.save_tasks import Kind, SaveTasks

MIB = 1 << 20
START = 8192


@pytest.fixture
def room() -> list[bool]:
    """Say whether there is room."""
    return [True]


@pytest.fixture
def ends() -> list[int]:
    """Keep what was said of offsets."""
    return []


@pytest.fixture
def tasks(room: list[bool], ends: list[int]) -> SaveTasks:
    """Give three batches of 4 MiB, all data."""
    geometry = Geometry((RamBlock("ram", 12 * MIB),), MIB)
    plan = SlotPlan("", Layout.PACKED, MIB, 4096, START)
    return SaveTasks(
        geometry, plan, lambda start: start, has_room=lambda: room[0], advance=ends.append
    )


def test_without_room_there_is_no_task_but_more_to_come(tasks, room):
    """A source without room is not at its end."""
    room[0] = False

    assert (tasks.next_for(0), tasks.waiting) == (None, True)


def test_with_room_again_it_goes_on(tasks, room):
    """A refused task is given later, and the time between is counted."""
    room[0] = False
    tasks.next_for(0)
    room[0] = True

    assert (tasks.next_for(0).first, tasks.waiting) == (0, False)
    assert tasks.waited_ns > 0


def test_at_its_end_it_does_not_wait(tasks):
    """When all tasks are given there are none to come."""
    given = [tasks.next_for(worker) for worker in range(4)]

    assert ([task.first for task in given[:3]], given[3]) == ([0, 4, 8], None)
    assert not tasks.waiting


def test_an_end_is_told_when_all_before_it_is_written(tasks, ends):
    """Places are written in any order; what is told has no gap."""
    given = [tasks.next_for(worker) for worker in range(3)]
    places = {
        place.first: (worker, place)
        for task, size in zip(given, (100, 20, 3), strict=True)
        for worker, place in tasks.finished(task.first // 4, task, size)
    }
    told = []
    for first in (8, 4, 0):
        worker, place = places[first]
        assert place.kind == Kind.PLACE
        tasks.finished(worker, place, 0)
        told.append(list(ends))

    assert told == [[], [], [START + 123]]
