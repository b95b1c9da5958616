"""
Saves by a fleet of workers whose codec is a wait, so that a few processors carry many workers.

All else is that of a real save: the parent, its tasks, pipes and counters, the index that workers
write, and the commit. An empty image stands for one without holes.
"""

import resource
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from snapmig.container.format import DEFAULT_PACKET_SIZE, Layout
from snapmig.container.slots import SlotPlan
from snapmig.geometry import Geometry
from snapmig.handlers.counters import Counter
from snapmig.handlers.packet_store import PacketStore
from snapmig.images.formats import open_image
from snapmig.images.source import ImageSource
from snapmig.operations.options.engine import choose_coding
from snapmig.operations.options.save import SaveOptions
from snapmig.operations.runs.save import open_save_run
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.operations.runs.save_output import SaveOutput
from snapmig.workers.counters import COUNTERS, Row
from snapmig.workers.tasks import Handler, Task

TASKS = COUNTERS - 1
"""A cell that saves leave free."""


@dataclass(frozen=True)
class Fleet:
    """
    What a save took, in seconds.

    :param wait_s: of each packet
    :param start_s: until all workers are started, of which the parent computes ``start_cpu_s``
    :param pass_s: until all packets are written, of which the parent computes ``parent_cpu_s``
    :param workers_cpu_s: processor time of the workers, their start included
    :param finish_cpu_s: processor time of the commit
    """

    workers: int
    wait_s: float
    packets: int
    tasks: int
    start_s: float
    start_cpu_s: float
    pass_s: float
    parent_cpu_s: float
    workers_cpu_s: float
    finish_cpu_s: float

    @property
    def task_cpu_s(self) -> float:
        """The parent's processor time for a task."""
        return self.parent_cpu_s / self.tasks

    @property
    def tasks_a_second(self) -> float:
        """Tasks done in a second."""
        return self.tasks / self.pass_s


class Waiting:
    """A save worker that waits for as long as its packets would take, and writes their records."""

    def __init__(self, slots: SlotPlan, geometry: Geometry, wait_s: float) -> None:
        self._store = PacketStore(slots, geometry, paced=False)
        self._wait_s = wait_s

    def run(self, task: Task, row: Row) -> int:
        """Wait, and write a batch without pages."""
        time.sleep(self._wait_s * task.count)
        self._store.write_batch(task, self._store.new_batch(), row)
        row[TASKS] += 1
        # As of dense memory, for the parent cuts larger batches where they take no time.
        row[Counter.WORK_NS] += int(max(self._wait_s, 1e-3) * 1e9) * task.count
        return 0

    def expect(self, task: Task) -> None:
        """Do nothing."""

    def notes(self) -> tuple[str, ...]:
        """Say nothing."""
        return ()


def fleet_save(folder: Path, workers: int, wait_s: float, packets: int) -> Fleet:
    """Save an image of so many packets to a snapshot in a folder, both of which stay."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(packets * DEFAULT_PACKET_SIZE)
    with closing(open_image(str(image), "raw")) as source:
        clock = _Clock()
        with open_save_run(
            _without_holes(source),
            folder / "snapshot",
            _options(workers),
            make_handler=partial(_handler, wait_s),
        ) as run:
            start, start_cpu = clock.lap()
            run.write_pass()
            took, cpu = clock.lap()
            tasks = int(run.counts()[TASKS])
            run.finish({})
            _, finish = clock.lap()
    return Fleet(
        workers, wait_s, packets, tasks, start, start_cpu, took, cpu, clock.children(), finish
    )


class _Clock:
    # Wall and processor time since the last look, and that of children since the beginning.
    def __init__(self) -> None:
        self._begun = self.children(0.0)
        self._last = self._now()

    def lap(self) -> tuple[float, float]:
        now = self._now()
        wall, cpu = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return wall, cpu

    def children(self, since: float | None = None) -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime - (self._begun if since is None else since)

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), time.process_time()


def _without_holes(source: ImageSource) -> ImageSource:
    size = sum(block.size for block in source.blocks)
    source.next_data = lambda start: start if start < size else None
    return source


def _handler(wait_s: float, inputs: SaveInputs, output: SaveOutput) -> Callable[[], Handler]:
    return partial(Waiting, output.writer.plan, inputs.geometry, wait_s)


def _options(workers: int) -> SaveOptions:
    coding = choose_coding("none", "auto", None, None, "dynamic", None)
    return SaveOptions(
        jobs=workers,
        settings=coding.settings,
        packet_size=None,
        layout=Layout.FIXED,
        attach={},
        force=True,
        live=False,
        progress=None,
    )
