"""Facts about batches of a remote snapshot handed out to workers."""

from types import SimpleNamespace

import numpy as np

from snapmig.operations.runs.windowed import Windowed
from snapmig.workers.tasks import Task

JOBS = 3


class _Tasks:
    # Enough of them, of one packet each.
    waiting = False

    def __init__(self):
        self._next = iter(range(1000))

    def next_for(self, _worker):
        return Task(0, next(self._next), 1)

    def finished(self, _worker, _task, _reply):
        return []

    def lost(self, _worker, _tasks):
        pass


def _windowed(size):
    records = np.array([(1000,)], [("stored_size", "<u4")])
    index = SimpleNamespace(steps=lambda _packets: [(0, records)])
    tasks = Windowed(
        _Tasks(), [SimpleNamespace(is_remote=True, index=index)], JOBS, requests=lambda: (0, 0)
    )
    tasks.window.size = size
    return tasks


def _handed_out(tasks):
    # By worker, until there is nothing for anybody.
    given = {worker: [] for worker in range(JOBS)}
    while True:
        found = {worker: task for worker in given if (task := tasks.next_for(worker))}
        if not found:
            return given
        for worker, task in found.items():
            given[worker].append(task)


def test_workers_share_the_window():
    """The requests that workers may have under way at once are as many as the window has."""
    given = _handed_out(_windowed(7))

    assert sum(tasks[-1].argument for tasks in given.values()) == 7


def test_more_is_handed_out_than_requested():
    """Twice as many batches are handed out, so that one that is late delays no request."""
    given = _handed_out(_windowed(7))

    assert sum(map(len, given.values())) == 14


def test_a_small_window_leaves_workers_out():
    """A window of one is a single request, of one worker."""
    given = _handed_out(_windowed(1))

    assert [len(tasks) for tasks in given.values()] == [2, 0, 0]
    assert given[0][0].argument == 1


def test_a_finished_batch_makes_room():
    """After the end of a batch another one is handed out."""
    tasks = _windowed(7)
    given = _handed_out(tasks)
    tasks.finished(1, given[1][0], None)

    assert sum(map(len, _handed_out(tasks).values())) == 1


def test_there_is_always_a_batch_if_none_is_under_way():
    """Any worker may ask first, and a run without batches under way is over."""
    task = _windowed(1).next_for(JOBS - 1)

    assert task.argument == 1
