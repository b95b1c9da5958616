"""Tasks of a receive over a single connection: packets gathered by the parent, to be stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from snapmig.errors import WorkerDiedError
from snapmig.geometry import Geometry
from snapmig.handlers.gathered_pages import Gathered, GatheredPages
from snapmig.handlers.receive import ReceiveKind, Store
from snapmig.handlers.receive_tasks import empty_tasks
from snapmig.migration.main_channel import MainChannel
from snapmig.workers.tasks import Task

__all__ = ("StreamTasks",)


class StreamTasks:
    """
    Hands out what has been gathered.

    :param codec: called for the codec of each packet
    :ivar ahead: tasks in a worker's pipe: the parent may be busy receiving for some time
    :ivar rounds: 0, because a stream does not show where QEMU begins again
    """

    ahead = 4
    rounds = 0
    told = False

    def __init__(
        self,
        geometry: Geometry,
        main: MainChannel,
        pages: GatheredPages,
        codec: Callable[[], int],
    ) -> None:
        self._main = main
        self._pages = pages
        self._codec = codec
        self._first = deque(empty_tasks(geometry))
        self._under_way = 0
        self._closed = False

    def hurry(self) -> None:
        """Do nothing: what comes is gathered in any case."""

    @property
    def received(self) -> bool:
        """True once everything has come, and what is left to do needs no guest."""
        return self._main.ended

    @property
    def waiting(self) -> bool:
        """True until all has been received and stored."""
        self._turn()
        return not (self._closed and self._pages.is_empty)

    def next_for(self, _worker: int) -> Task | None:
        """Return a packet to store."""
        if self._first:
            self._under_way += 1
            return self._first.popleft()
        if self._under_way:
            return None
        self._turn()
        if self._pages.zero_runs:
            run = self._pages.zero_runs.popleft()
            return Task(ReceiveKind.ZERO, run.start, len(run))
        found = self._pages.next_ready()
        if found is None:
            return None
        argument = Store(found.buffer, self._codec()).pack()
        return Task(ReceiveKind.STORE, found.packet, 1, argument)

    def finished(self, _worker: int, task: Task, _reply: int) -> list[tuple[int, Task]]:
        """Use the buffer again."""
        if task.kind == ReceiveKind.EMPTY:
            self._under_way -= 1
        elif task.kind == ReceiveKind.STORE:
            self._pages.finish(Gathered(task.first, Store.unpack(task.argument).buffer))
        return []

    def lost(self, worker: int, _tasks: Sequence[Task]) -> None:
        """
        Note the death of a worker.

        :raises WorkerDiedError: always
        """
        raise WorkerDiedError(f"worker {worker} died, and with it what it was storing")

    def _turn(self) -> None:
        if self._main.ended:
            if not self._closed:
                self._closed = True
                self._pages.close_all()
        elif self._pages.is_idle and self._pages.full:
            self._pages.close_fullest()
