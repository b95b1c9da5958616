"""
Measures snapmig beside QEMU's own ways to save and restore a guest, and how long one stands still.

One paused guest is saved by all, and what was saved is restored into new QEMUs that wait.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import facts, guest_pauses, guest_runs, machines
from tests.bench.guest_limits import GUEST_LIMITS, GuestLimit
from tests.bench.guest_pauses import IN_THE_BACKGROUND, WAYS, PauseWay
from tests.bench.guest_report import CACHES, guest_report
from tests.bench.guest_runs import CONTESTANTS, GuestContestant, Took
from tests.bench.machines import Machine, Running
from tests.bench.measure import sizes
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with, say, watched
from tests.bench.runner import SHARED_MEMORY, WARM_UP, Record, require_room, work_folder
from tests.bench.summary import Context
from tests.support.guests.build import CACHE
from tests.support.guests.image import parse_size
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import PROGRAM, GuestError, Qemu, find_qemu
from tests.support.guests.tiny.guest import Layout

MIB = 1 << 20
ROOM = 6
"""RAM sizes that must be free in shared memory: two guests, and what is written."""
PACKET_PAGES = 128
LOADS = {
    "1/16 of packets": (16 * PACKET_PAGES - 1, PACKET_PAGES),
    "1/64 of packets": (64 * PACKET_PAGES - 1, PACKET_PAGES),
    "1/64 of pages": (63, 1),
}
"""What a tiny guest writes in each of its passes: a mask of the page's number and a bound below
which the page is hot. The last is spread over all packets."""
OPTIONAL = ("output_bytes", "disk_bytes", "grown_bytes", "memory_disk_bytes", "cached_share")
LIMITS_IN = "shm"
"""The place among whose saves the limits are measured, and restores into private memory."""
ORDER = (
    *(one.name for one in CONTESTANTS),
    *(limit.name for limit in GUEST_LIMITS),
    *(name for name in guest_pauses.NAMES if name not in {one.name for one in CONTESTANTS}),
)
SAID = ("changed_packets", "rounds", "rewritten_size", "downtime_s")
"""What snapmig and QEMU say about a save besides times."""


@dataclass(frozen=True)
class Bench:
    """
    The choice of measurements and places.

    :param destinations: names of the places that files go to, and their folders
    :param keep: takes each record
    """

    machine: Machine
    contestants: Sequence[GuestContestant]
    shared: Path
    destinations: dict[str, Path]
    options: argparse.Namespace
    keep: Callable[[Record], None]

    @property
    def jobs(self) -> int:
        """Processes of snapmig, and channels of QEMU."""
        return int(self.options.jobs)

    def file(self, place: str, contestant: GuestContestant) -> Path:
        """Where a contestant's file lies."""
        name = contestant.file_of or contestant.name
        return self.destinations[place] / name.replace(" ", "")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench --guests", description=__doc__)
    add = parser.add_argument
    add("--ram", type=parse_size, help="of the guest (2G; 64M with --quick)")
    add("--tiny", action="store_true", help="the tiny guest instead of Linux; less than 2G")
    add("--pause-ram", type=parse_size, help="of running tiny guests (512M; 64M with --quick)")
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, help="(3; 1 with --quick)")
    add("--cache", type=Path, default=CACHE, help="where the guest's system is kept")
    add("--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)")
    add("--quick", action="store_true", help="one round with a tiny guest, one load, no warm-up")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.tiny = options.tiny or quick
    options.ram = options.ram or (64 * MIB if quick else 2048 * MIB)
    options.pause_ram = options.pause_ram or (64 * MIB if quick else 512 * MIB)
    options.rounds = options.rounds or (1 if quick else 3)
    if options.rounds < 1 or options.jobs < 1:
        parser.error("--rounds and --jobs are at least 1")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = parse_arguments(arguments)
    return main_with(lambda: _bench(options), GuestError, PackagesError)


def _bench(options: argparse.Namespace) -> str:
    with ExitStack() as stack:
        qemu = find_qemu()
        path = options.output_dir / "guests.jsonl"
        if qemu.path is None:
            with Records(path, {}) as records:
                records.write("missing", {"name": PROGRAM})
            return f"guests: not measured, because {qemu.reason}"
        shared, destinations = _folders(options, stack)
        machine = _machine(options, qemu, shared, stack)
        known = facts.collect(shared) | machines.facts(machine, qemu)
        records = stack.enter_context(Records(path, known))
        contestants = [one for one in CONTESTANTS if not one.lacks]
        bench = Bench(machine, contestants, shared, destinations, options, records.keep)
        _run_paused(bench)
        _run_pauses(bench, qemu)
        kinds = {name: facts.filesystem(path) for name, path in destinations.items()}
    context = Context(known, kinds, (options.jobs,), options.rounds)
    missing = [one.lacks for one in CONTESTANTS if one.lacks]
    ends = [f"not measured, because it is not installed: {name}" for name in missing]
    report = guest_report(records.results, context)
    return "\n".join([report, *ends, f"written: {records.path}"])


def _folders(options: argparse.Namespace, stack: ExitStack) -> tuple[Path, dict[str, Path]]:
    require_room(options.ram * ROOM)
    shared = stack.enter_context(work_folder(SHARED_MEMORY))
    return shared, {"shm": shared, "disk": stack.enter_context(work_folder(options.output_dir))}


def _machine(options: argparse.Namespace, qemu: Qemu, shared: Path, stack: ExitStack) -> Machine:
    if options.tiny:
        return machines.tiny_machine(qemu, Layout(ram=options.ram, ticks=0), shared)
    return stack.enter_context(machines.linux_machine(qemu, options.ram, options.cache))


def _run_paused(bench: Bench) -> None:
    # Saves first: what they leave is restored in the same round.
    with machines.ready(bench.machine, bench.shared) as running:
        running.guest.stop()
        first = 0 if bench.options.quick else WARM_UP
        for number in range(first, bench.options.rounds):
            for place in bench.destinations:
                limits = GUEST_LIMITS if place == LIMITS_IN else ()
                savers = [one for one in bench.contestants if one.save]
                for one in in_turn([*savers, *limits], number):
                    if isinstance(one, GuestLimit):
                        _measure_limit(bench, running, one, number)
                    else:
                        _measure_save(bench, running, one, place, number)
            for place, cache in CACHES:
                for one in in_turn(_restorers(bench, place), number):
                    _measure_restore(bench, one, place, cache, number)
    for place in bench.destinations:
        for one in bench.contestants:
            bench.file(place, one).unlink(missing_ok=True)


def _restorers(bench: Bench, place: str) -> list[GuestContestant]:
    # How fast a disk is says nothing more of a guest's kind of memory.
    found = [one for one in bench.contestants if one.restore]
    return [one for one in found if place == LIMITS_IN or not one.private]


def _measure_save(
    bench: Bench, running: Running, one: GuestContestant, place: str, number: int
) -> None:
    save, path = one.save, bench.file(place, one)
    if save is None:
        raise ValueError(f"{one.name} saves nothing")
    path.unlink(missing_ok=True)
    running.pause_anew()
    one.prepare(running, bench.jobs)
    took, more = _on_memory(running, lambda: save(running, path, bench.jobs))
    size = sizes(path)
    more |= {"output_bytes": size.length, "disk_bytes": size.disk}
    if one.restore is None:
        path.unlink()
    _keep(bench, ("save", one.name, one.role, place), number, took, more)


def _measure_limit(bench: Bench, running: Running, limit: GuestLimit, number: int) -> None:
    running.pause_anew()
    limit.prepare(running, bench.jobs)
    took, more = _on_memory(running, lambda: limit.run(running, bench.jobs))
    _keep(bench, ("save", limit.name, "limit", None), number, took, more)


def _on_memory(running: Running, work: Callable[[], Took]) -> tuple[Took, dict[str, Any]]:
    # Holes that QEMU fills by reading them are punched again.
    gaps, before = machines.holes(running.memory), sizes(running.memory).disk
    took, outside = watched(work, running.memory.stat().st_size)
    grown = sizes(running.memory).disk - before
    machines.give_back(running.memory, gaps)
    return took, {**outside, "memory_disk_bytes": before, "grown_bytes": grown}


def _measure_restore(
    bench: Bench, one: GuestContestant, place: str, cache: str, number: int
) -> None:
    restore = one.restore
    if restore is None:
        raise ValueError(f"{one.name} restores nothing")
    path = bench.file(place, one)
    machines.load_pages(path)
    memory = {"incoming": True, "private": one.private}
    with machines.started(bench.machine, bench.shared, **memory) as running:
        one.prepare(running, bench.jobs)
        running.drain()
        if cache == "cold":
            machines.forget_pages(path)
        share = guest_runs.still_cached(path)
        took, outside = watched(lambda: restore(running, path, bench.jobs), bench.options.ram)
        grown = None if one.private else sizes(running.memory).disk
    more = {**outside, "cached_share": share, "memory_disk_bytes": grown}
    where = place if place == "shm" else f"{place}, {cache}"
    _keep(bench, ("restore", one.name, one.role, where), number, took, more)


def _run_pauses(bench: Bench, qemu: Qemu) -> None:
    if not bench.options.tiny:
        _measure_pauses(bench, bench.machine, "Linux at rest")
    loads = list(LOADS.items())
    for words, (mask, limit) in loads[:1] if bench.options.quick else loads:
        layout = Layout(ram=bench.options.pause_ram, hot_mask=mask, hot_limit=limit, ticks=0)
        machine = machines.tiny_machine(qemu, layout, bench.shared, words)
        _measure_pauses(bench, machine, words)


def _measure_pauses(bench: Bench, machine: Machine, load: str) -> None:
    path = bench.shared / "paused"
    with machines.ready(machine, bench.shared) as running:
        ways = list(WAYS)
        if reason := guest_pauses.no_background(running):
            say(f"{load}: nothing saved in the background: {reason}")
            ways = [way for way in WAYS if way.name not in IN_THE_BACKGROUND]
        for number in range(bench.options.rounds):
            for way in in_turn(ways, number):
                _measure_pause(bench, running, (way, load), path, number)


def _measure_pause(
    bench: Bench, running: Running, what: tuple[PauseWay, str], path: Path, number: int
) -> None:
    way, load = what
    way.prepare(running, bench.jobs)
    running.drain()
    gaps = machines.holes(running.memory)
    took, more = watched(lambda: way.run(running, path, bench.jobs), bench.options.ram)
    if path.exists():
        size = sizes(path)
        path.unlink()
        more |= {"output_bytes": size.length, "disk_bytes": size.disk}
    running.guest.stop()
    machines.give_back(running.memory, gaps)
    running.guest.cont()
    _keep(bench, ("pause", way.name, way.role, load), number, took, more)


def _keep(
    bench: Bench,
    what: tuple[str, str, str, str | None],
    number: int,
    took: Took,
    more: dict[str, Any],
) -> None:
    operation, name, role, place = what
    pause = took.said.get("pause_seconds")
    words = "warm-up" if number == WARM_UP else f"round {number + 1}"
    shown = f", stood still {pause:.3f} s" if operation == "pause" else f": {took.wall:.3f} s"
    say(f"{words}: {operation}, {place or 'no file'}, {name}{shown}")
    known = {
        "role": role,
        "destination": place,
        "order": ORDER.index(name),
        "wall_s": round(took.wall, 4),
        "cpu_s": round(took.cpu, 4),
        "inner_s": took.said.get("seconds"),
        "pause_s": pause,
        **{figure: took.said.get(figure) for figure in SAID},
        "ram_bytes": bench.options.pause_ram if place in LOADS else bench.machine.ram,
        **dict.fromkeys(OPTIONAL),
        **more,
    }
    bench.keep(described(operation, name, number, jobs=bench.jobs, **known))
