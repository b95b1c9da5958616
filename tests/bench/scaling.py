"""
How saves would scale to more processors: python -m tests.bench.scaling --image IMAGE.

Measured: the processor time of one worker for the packets of IMAGE, and of the parent for tasks of
fleets of waiting workers. From these a model, beside the fleets and beside real saves by as many
workers as there are processors. Predicted, and no more than that: saves of larger guests by more
processors, and by several hosts.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import snapmig
from snapmig.container.format import DEFAULT_PACKET_SIZE
from snapmig.handlers.batch_size import LARGEST
from tests.bench import facts
from tests.bench.digests import worker_seconds
from tests.bench.fleet import Fleet, fleet_save
from tests.bench.measure import busy
from tests.bench.model import Costs, pass_seconds, save_seconds, shares_seconds
from tests.bench.records import Records, described
from tests.bench.rounds import main_with, say
from tests.bench.runner import SHARED_MEMORY, copy_image, require_room, work_folder
from tests.bench.tables import MIB, text_table
from tests.support import program

GIB, TIB = 1 << 30, 1 << 40
FLEETS = (8, 16, 32, 64, 128, 256)
RAMS = (16 * GIB, 64 * GIB, 256 * GIB, TIB, 4 * TIB)
PROCESSORS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HOSTS = (1, 2, 4, 8, 16)
HOST_PROCESSORS = 16
LINKS = {"10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9}
BATCH = LARGEST // DEFAULT_PACKET_SIZE
FULL = 0.8
"""Share of this machine's processors in use, by anyone, above which wall time tells nothing."""
SCANNERS = 64
"""Workers that are to read RAM at the assumed bandwidth."""
SAVE, FLEET = "save", "fleet"
SCANNING, CODEC = "scanning", "codec"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=__doc__)
    add = parser.add_argument
    add("--image", type=Path, required=True, help="a guest's RAM, whole pages")
    add("--compression", default="zlib", help="(%(default)s)")
    add("--rounds", type=int, default=5, help="(%(default)s)")
    add("--fleets", type=_numbers, default=FLEETS, help="workers of each fleet (8,16 ... 256)")
    add("--batches", type=int, default=20, help="of each worker in a fleet, at least (%(default)s)")
    add("--bandwidth", type=float, default=60, help="GB of RAM read in a second, assumed (60)")
    add("--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the tables."""
    options = parse_arguments(arguments)
    options.bandwidth *= 1e9
    return main_with(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> list[str]:
    require_room(2 * options.image.stat().st_size)
    with work_folder(SHARED_MEMORY) as folder:
        copy_image(options.image, folder / "ram")
        known = facts.collect(options.image)
        with Records(options.output_dir / "scaling.jsonl", known) as records:
            bench = Bench(options, folder, records)
    return [*bench.report(), f"written: {records.path}"]


class Bench:
    """Everything that is measured, in rounds, and what follows from it."""

    def __init__(self, options: argparse.Namespace, folder: Path, records: Records) -> None:
        self._options = options
        self._folder = folder
        self._records = records
        self._fleets: dict[tuple[str, int], list[Fleet]] = {}
        self._crowded: set[tuple[str, int]] = set()
        self._saves: dict[int, list[float]] = {}
        scan_s = SCANNERS * DEFAULT_PACKET_SIZE / options.bandwidth
        workers: list[float] = []
        commands: list[float] = []
        for number in range(options.rounds):
            commands.append(self._command())
            for jobs in _powers(facts.processors()):
                cpu, wall, result = self._save(jobs, number)
                self._saves.setdefault(jobs, []).append(wall)
                if jobs == 1:
                    workers.append(cpu)
            self._result = result
            for count in options.fleets:
                for name, wait_s in ((SCANNING, scan_s), (CODEC, self._packet_s(workers))):
                    self._fleet(name, count, wait_s, number)
        self.costs = self._costs(self._packet_s(workers), median(commands))
        records.write("costs", {"costs": asdict(self.costs)})

    def report(self) -> Iterator[str]:
        """Yield the tables."""
        costs, options = self.costs, self._options
        yield f"measured, processor time, {options.compression}:"
        yield f"worker, a packet with pages  {1e3 * costs.packet_s:.3f} ms"
        yield f"parent, a task               {1e6 * costs.task_s:.0f} us"
        yield f"parent, start of a worker    {1e3 * costs.start_s:.1f} ms"
        yield f"parent, commit of a packet   {1e9 * costs.finish_s:.0f} ns"
        yield f"the command itself           {costs.command_s:.2f} s"
        ram = BATCH * DEFAULT_PACKET_SIZE / costs.task_s / 1e9
        yield f"parent, most in a second     {1 / costs.task_s:.0f} tasks, {ram:.0f} GB of RAM"
        fleets = "fleets of waiting workers, measured and modelled"
        yield from self._section(fleets, self._fleet_rows())
        yield from self._section("saves of the image, measured and modelled", self._save_rows())
        full = f"RAM like that of the image, no holes, {options.bandwidth / 1e9:g} GB/s of memory"
        yield from self._section(f"modelled only, seconds and limit: {full}", self._model_rows())
        hosts = f"shares of 1 TiB, hosts with {HOST_PROCESSORS} processors each"
        yield from self._section(f"modelled only, seconds and limit: {hosts}", self._host_rows())
        yield "*: the machine was full, so wall time tells nothing; processor time stands"

    def _section(self, title: str, rows: Iterator[list[str]]) -> Iterator[str]:
        yield from ("", title, *text_table(list(rows)))

    def _command(self) -> float:
        small = self._folder / "small"
        small.write_bytes(bytes(4 * MIB))
        words = ("save", "-f", "-j", 1, small, self._folder / "small.snap")
        return worker_seconds(lambda: program.run(*words, timeout=60).ok(err=None))

    def _save(self, jobs: int, number: int) -> tuple[float, float, snapmig.SaveResult]:
        found: list[snapmig.SaveResult] = []
        out = self._folder / "snapshot"

        def work() -> None:
            form = self._options.compression
            found.append(
                snapmig.save(self._folder / "ram", out, jobs=jobs, force=True, compression=form)
            )

        cpu, wall = _timed(lambda: worker_seconds(work))
        say(f"save by {jobs}: {wall:.2f} s, {cpu:.2f} of workers")
        out.unlink()
        self._records.keep(described(SAVE, "snapmig", number, jobs=jobs, wall_s=wall, cpu_s=cpu))
        return cpu, wall, found[0]

    def _fleet(self, name: str, workers: int, wait_s: float, number: int) -> None:
        before, started = busy(), time.monotonic()
        with work_folder(self._folder) as folder:
            found = fleet_save(folder, workers, wait_s, workers * BATCH * self._options.batches)
        after, took = busy(), time.monotonic() - started
        used = after.used - before.used + after.stolen - before.stolen
        if used > FULL * took * facts.processors():
            self._crowded.add((name, workers))
        self._fleets.setdefault((name, workers), []).append(found)
        task_us = 1e6 * found.task_cpu_s
        say(f"{workers} workers, {name}: {found.pass_s:.2f} s, {task_us:.0f} us a task")
        figures = {
            "wall_s": found.pass_s,
            "cpu_s": found.parent_cpu_s,
            "task_us": task_us,
            "start_s": found.start_s,
            "workers_cpu_s": found.workers_cpu_s,
            "finish_cpu_s": found.finish_cpu_s,
            "others_cpu_s": max(0.0, used - found.parent_cpu_s - found.workers_cpu_s),
        }
        facts_of_it = {"tasks": found.tasks, "packets": found.packets, "packet_wait": wait_s}
        self._records.keep(
            described(FLEET, name, number, jobs=workers, role="fleet", **figures, **facts_of_it)
        )

    def _packet_s(self, workers: Sequence[float]) -> float:
        stored = sum(self._result.packets.values()) - self._result.packets["empty"]
        return median(workers) / stored

    def _costs(self, packet_s: float, command_s: float) -> Costs:
        every = [one for all_of in self._fleets.values() for one in all_of]
        most = max(one.packets for one in every)  # a commit costs a little besides its packets
        return Costs(
            packet_s,
            median(one.task_cpu_s for one in every),
            median(one.start_cpu_s / one.workers for one in every),
            median(one.finish_cpu_s / most for one in every if one.packets == most),
            command_s,
        )

    def _fleet_rows(self) -> Iterator[list[str]]:
        head = ["wait, us a packet", "tasks / s", "RAM, GB / s", "parent, us a task", "busy"]
        yield ["", *head, "start, s", "model", "pass, s", "model", "measured / model"]
        for (name, workers), rounds in self._fleets.items():
            one = rounds[0]
            middle = _medians(rounds)
            costs = replace(self.costs, packet_s=one.wait_s)
            model = max(pass_seconds(costs, one.packets, workers, math.inf).values())
            crowded = "*" if (name, workers) in self._crowded else ""
            ram = one.packets * DEFAULT_PACKET_SIZE / middle("pass_s") / 1e9
            yield [
                f"{workers} workers, {name}",
                f"{1e6 * one.wait_s:.0f}",
                f"{middle('tasks_a_second'):.0f}",
                f"{ram:.1f}",
                f"{1e6 * middle('task_cpu_s'):.0f}",
                f"{middle('parent_cpu_s') / middle('pass_s'):.0%}",
                f"{middle('start_s'):.2f}",
                f"{workers * self.costs.start_s:.2f}",
                f"{middle('pass_s'):.3f}{crowded}",
                f"{model:.3f}",
                f"{middle('pass_s') / model:.2f}",
            ]

    def _save_rows(self) -> Iterator[list[str]]:
        stored = sum(self._result.packets.values()) - self._result.packets["empty"]
        yield ["", "measured, s", "model, s", "measured / model"]
        for jobs, walls in self._saves.items():
            costs = replace(self.costs, command_s=0)
            model, _ = save_seconds(costs, stored, jobs, self._options.bandwidth)
            took = median(walls)
            yield [f"{jobs} jobs", f"{took:.3f}", f"{model:.3f}", f"{took / model:.2f}"]

    def _model_rows(self) -> Iterator[list[str]]:
        yield ["processors", *(_size(ram) for ram in RAMS)]
        for workers in PROCESSORS:
            found = [
                save_seconds(
                    self.costs, ram // DEFAULT_PACKET_SIZE, workers, self._options.bandwidth
                )
                for ram in RAMS
            ]
            yield [str(workers), *(f"{seconds:.2f} {limit}" for seconds, limit in found)]

    def _host_rows(self) -> Iterator[list[str]]:
        size = self._result.stored_size / sum(self._result.packets.values())
        yield ["hosts", *LINKS]
        for hosts in HOSTS:
            found = [
                shares_seconds(
                    self.costs,
                    TIB // DEFAULT_PACKET_SIZE,
                    hosts,
                    HOST_PROCESSORS,
                    self._options.bandwidth,
                    link,
                    size,
                )
                for link in LINKS.values()
            ]
            yield [str(hosts), *(f"{seconds:.1f} {limit}" for seconds, limit in found)]


def _medians(rounds: Sequence[Fleet]) -> Callable[[str], float]:
    return lambda name: median(getattr(one, name) for one in rounds)


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def _powers(most: int) -> list[int]:
    return [count for count in (1 << power for power in range(9)) if count <= most]


def _size(size: int) -> str:
    return f"{size // TIB} TiB" if size >= TIB else f"{size // GIB} GiB"


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
