"""Runs what is planned, round by round, and gives one record for each run."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.contestants import MAIN, Contestant
from tests.bench.limits import Limit
from tests.bench.measure import Sizes, Timing, run_command, sizes
from tests.bench.plan import Config, Item, rotated, warm_ups
from tests.bench.rounds import say, watched

Record = dict[str, Any]
WARM_UP = -1
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Workplace:
    """
    Where runs read and write.

    :param image: the image in shared memory
    :param sources: a folder in shared memory for what restores read
    """

    image: Path
    sources: Path


class Runner:
    """Measures items; each output is removed before the next run, outside of the timed part."""

    def __init__(self, config: Config, workplace: Workplace, keep: Callable[[Record], None]):
        self._config = config
        self._place = workplace
        self._keep = keep

    def warm_up(self, planned: list[Item]) -> None:
        """Run each contestant once; its saved file stays in shared memory for the restores."""
        for item in warm_ups(planned, restores=self._config.warm_restores):
            say(f"warm-up: {item.label}")
            self._measure(item, WARM_UP)

    def run(self, planned: list[Item]) -> None:
        """Run all rounds."""
        for number in range(self._config.rounds):
            for item in rotated(planned, number, self._config):
                self._measure(item, number)

    def _measure(self, item: Item, number: int) -> None:
        size = Sizes()

        def work() -> Timing:
            nonlocal size
            if isinstance(item.what, Contestant):
                timing, size = self._run_contestant(item, item.what, keep=number == WARM_UP)
                return timing
            if isinstance(item.what, Limit):
                folder = self._config.destinations.get(item.destination, self._place.sources)
                took = item.what.run(item.jobs, folder)
                return Timing(took.slowest, took.cpu, took.mean)
            return run_command(item.what, cwd=self._place.sources)

        timing, others = watched(work, self._place.image.stat().st_size)
        if number != WARM_UP:
            say(f"round {number + 1}: {item.label}: {timing.wall:.3f} s")
        self._keep(
            {
                **item.parameters,
                "round": number,
                "warm_up": number == WARM_UP,
                "wall_s": round(timing.wall, 4),
                "cpu_s": round(timing.cpu, 4),
                "inner_s": None if timing.inner is None else round(timing.inner, 4),
                **others,
                "output_bytes": size.length,
                "disk_bytes": size.disk,
            }
        )

    def _run_contestant(
        self, item: Item, contestant: Contestant, *, keep: bool
    ) -> tuple[Timing, Sizes]:
        saved = self._place.sources / contestant.name.replace(" ", "")
        output = self._config.destinations[item.destination] / "output"
        source = saved
        if item.operation == "save":
            source, output = self._place.image, saved if keep else output
        command = contestant.command(item.operation, str(source), str(output), item.jobs)
        timing = run_command(
            command,
            output=output,
            to_stdout=contestant.writes_stdout(item.operation),
            sync=contestant.program != MAIN.program,
            cwd=self._place.sources,
        )
        size = sizes(output)
        if output != saved:
            output.unlink()
        return timing, size


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Give a folder that is removed at the end; its name tells which process made it."""
    with tempfile.TemporaryDirectory(prefix=f"snapmig-bench-{os.getpid()}-", dir=parent) as name:
        yield Path(name).resolve()


def require_room(needed: int) -> None:
    """
    Look for free shared memory before it runs out.

    :raises ValueError: there is less than that many bytes
    """
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise ValueError(f"{SHARED_MEMORY} has {free} bytes free, expected {needed}")


def copy_image(image: Path, copy: Path, step: int = 1 << 21) -> None:
    """Copy an image; its zero blocks become holes, as RAM that a guest never touched is."""
    zeros = bytes(step)
    with image.open("rb") as source, copy.open("wb") as target:
        target.truncate(image.stat().st_size)
        for offset, data in _blocks(source, step):
            if data != zeros[: len(data)]:
                target.seek(offset)
                target.write(data)


def _blocks(source: Any, step: int) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while data := source.read(step):
        yield offset, data
        offset += len(data)
