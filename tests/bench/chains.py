"""
Measures snapshots that build on older ones, beside zstd's patches and a deduplicating backup tool.

One guest under a steady load is looked at every few seconds; each image is kept beside the one
before it, and got back.
"""

import argparse
import resource
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench import facts
from tests.bench.chain_images import Series, guest_series, made_series
from tests.bench.chain_report import chain_report
from tests.bench.chain_runs import (
    BORG,
    PEERS,
    ZSTD,
    ZSTD_WINDOW,
    Borg,
    ChainRun,
    Place,
    chain_runs,
    disk_bytes,
    make_kept,
    run_quietly,
)
from tests.bench.contestants import lack
from tests.bench.measure import run_command, sizes
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with, say, watched
from tests.bench.runner import SHARED_MEMORY, Record, copy_image, require_room, work_folder
from tests.bench.summary import Context
from tests.support.guests.build import CACHE
from tests.support.guests.image import parse_size
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import PROGRAM, GuestError, find_qemu

MIB = 1 << 20
SHARE = 0.05
"""Changed pages of the image that all are compared with, as near to it as there is one."""
ROOM = 5.0
"""Shared memory that is needed besides the images, by the disk space of the largest of them:
snapshots with page digests and without, borg's repository, and one image that was got back."""
PATCH = 2.2
"""Memory that zstd has of its own for a patch, by the size of the guest."""
LIMIT = 3.5
"""Memory that a measured process may have of its own, by the size of the guest, and 1 GiB more."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench --chains", description=__doc__)
    add = parser.add_argument
    add(
        "--ram",
        type=parse_size,
        help="of the guest (1G, since zstd needs less than 2G; 16M with --quick)",
    )
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, help="(5; 1 with --quick)")
    add("--cache", type=Path, default=CACHE, help="where the guest's images are kept")
    add("--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)")
    add("--quick", action="store_true", help="one round with images that are no guest's")
    options = parser.parse_args(arguments)
    options.ram = options.ram or (16 * MIB if options.quick else 1024 * MIB)
    options.rounds = options.rounds or (1 if options.quick else 5)
    if options.rounds < 1 or options.jobs < 1:
        parser.error("--rounds and --jobs are at least 1")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = parse_arguments(arguments)
    return main_with(lambda: _bench(options), GuestError, PackagesError)


def _bench(options: argparse.Namespace) -> str:
    with ExitStack() as stack:
        shared = stack.enter_context(work_folder(SHARED_MEMORY))
        series = _series(options, shared)
        known = {} if series is None else _known(series, shared, options)
        records = stack.enter_context(Records(options.output_dir / "chains.jsonl", known))
        if series is None:
            records.write("missing", {"name": PROGRAM})
            return f"chains: not measured, because {find_qemu().reason}"
        _limit_memory(options.ram)
        main_image = nearest(series)
        _measure(_place(series, main_image, shared, options), options, series, records.keep)
        kind = facts.filesystem(shared)
    context = Context(known, {"shm": kind}, (options.jobs,), options.rounds)
    words = chain_report(records.results, context, series.changes, main_image)
    if options.ram >= ZSTD_WINDOW:
        words += f"\nnot measured, because its window is too small for the images: {ZSTD}"
    missing = [program for program in PEERS.values() if lack(program, "")]
    ends = [f"not measured, because it is not installed: {name}" for name in missing]
    return "\n".join([words, *ends, f"written: {records.path}"])


def _known(series: Series, shared: Path, options: argparse.Namespace) -> dict[str, Any]:
    known = facts.collect(shared) | series.facts | {"version_borg": facts.program_version(BORG)}
    return known | {"image": series.name, "image_bytes": options.ram}


def _series(options: argparse.Namespace, shared: Path) -> Series | None:
    if options.quick:
        folder = shared / "made"
        folder.mkdir()
        return made_series(options.ram, folder)
    qemu = find_qemu()
    return None if qemu.path is None else guest_series(qemu, options.ram, options.cache)


def nearest(series: Series) -> int:
    """Return the number of the image whose changed pages are nearest to the share of the target."""
    gaps = [abs(change.share - SHARE) for change in series.changes]
    return gaps.index(min(gaps)) + 1


def _place(series: Series, main_image: int, shared: Path, options: argparse.Namespace) -> Place:
    disk = [sizes(path).disk for path in series.images]
    needed = int(sum(disk) + ROOM * max(disk))
    require_room(needed)
    _require_memory(needed + int(PATCH * options.ram))
    folder = shared / "images"
    folder.mkdir()
    copies = []
    for path in series.images:
        say(f"copying {path.name} to {SHARED_MEMORY}")
        copies.append(folder / path.name)
        copy_image(path, copies[-1])
    return Place(copies, main_image, shared, options.jobs)


def _require_memory(needed: int) -> None:
    # Shared memory is memory: what it may hold says nothing about what there is.
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    if free < needed:
        raise ValueError(f"{free} bytes of memory are available, expected {needed}")


def _limit_memory(ram: int) -> None:
    # Of this process and of all that it starts, each by itself; what is shared does not count.
    most = int(ram * LIMIT) + (1 << 30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _measure(
    place: Place,
    options: argparse.Namespace,
    series: Series,
    keep: Callable[[Record], None],
) -> None:
    with work_folder(options.output_dir) as states:
        borg = None if lack(PEERS[BORG], "") else Borg(place.folder / "borg", states)
        say("making what is built on")
        make_kept(place, borg)
        if place.main > 1:
            place.images[0].unlink()  # nothing reads it any more
        _run_rounds(chain_runs(place, borg), place, options, series, keep)


def _run_rounds(
    planned: Sequence[ChainRun],
    place: Place,
    options: argparse.Namespace,
    series: Series,
    keep: Callable[[Record], None],
) -> None:
    peaks = {}
    for run in planned:
        run.prepare()
        peaks[run] = run_quietly(run.command, place.folder)
    for number in range(options.rounds):
        for run in in_turn(planned, number, options.rounds):
            change = series.changes[run.image - 1]
            known = {"peak_bytes": peaks[run], "order": planned.index(run), "role": run.role}
            known |= {"changed_share": round(change.share, 4), "destination": place_name(run.image)}
            known |= _run(run, place.folder, options.ram)
            keep(described(run.operation, run.name, number, jobs=options.jobs, **known))


def _run(run: ChainRun, folder: Path, ram: int) -> dict[str, Any]:
    run.prepare()
    there = disk_bytes(run.output)
    # Of a folder, all files are in shared memory, where there is nothing to wait for.
    output = None if run.output.is_dir() else run.output
    timing, others = watched(
        lambda: run_command(run.command, output=output, sync=not run.synced, cwd=folder), ram
    )
    written = disk_bytes(run.output) - there
    say(f"{run.operation} of image {run.image}, {run.name}: {timing.wall:.3f} s")
    said = {name: timing.said.get(name) for name in ("same_pages", "delta_pages", "data_pages")}
    figures = {"wall_s": round(timing.wall, 4), "cpu_s": round(timing.cpu, 4)}
    return {**figures, "inner_s": timing.inner, "disk_bytes": written, **said, **others}


def place_name(image: int) -> str:
    """Return how records name the image that they are about."""
    return f"image {image}"
