"""
Measures guests sent to a QEMU behind a link of little room, as pages and as compressed packets.

The link joins two network namespaces, and the kernel limits it; root is needed.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import facts, guest_runs, machines
from tests.bench.contestants import PYTHON
from tests.bench.machines import MIB, Machine, Running
from tests.bench.measure import Timing, run_command, sizes
from tests.bench.records import Records, described
from tests.bench.rounds import main_with, say, watched
from tests.bench.runner import SHARED_MEMORY, WARM_UP, Record, require_room, work_folder
from tests.bench.summary import Results, ratio
from tests.bench.tables import CPU, Column, figure_rows, text_table, verdict
from tests.support import network
from tests.support.guests import migration
from tests.support.guests.build import CACHE
from tests.support.guests.image import parse_size
from tests.support.guests.migration import MULTIFD
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import GuestError, find_qemu
from tests.support.network import Link

PORT = 4444
SENT, OPERATION = "link", "restore"
FEWER = 3.0
"""A restore by packets of zstd is to be so many times as fast as one by pages."""
ROOM = 4
"""RAM sizes that must be free in shared memory: a guest, and what is saved."""


@dataclass(frozen=True)
class Way:
    """
    A form of what goes over the link.

    :param compression: of the snapshot that is sent
    :param wire: as of ``--wire``
    """

    name: str
    compression: str
    wire: str


WAYS = (
    Way("pages", "zstd", "none"),
    Way("zstd frames", "zstd", "zstd"),
    Way("zlib packets", "zlib", "zlib"),
    Way("zlib packets compressed anew by zstd", "zlib", "zstd"),
)
PAGES, FRAMES = WAYS[0].name, WAYS[1].name


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.link", description=__doc__)
    add = parser.add_argument
    add("--ram", type=parse_size, default=2048 * MIB, help="of the guest (2G)")
    add("--rate", default="1gbit", help="of the link, as for tc (%(default)s)")
    add("--jobs", type=int, default=facts.processors(), help="channels (%(default)s)")
    add("--rounds", type=int, default=3, help="(%(default)s)")
    add("--cache", type=Path, default=CACHE, help="where the guest's system is kept")
    add("--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = parse_arguments(arguments)
    return main_with(lambda: _bench(options), GuestError, PackagesError)


def _bench(options: argparse.Namespace) -> str | list[str]:
    qemu = find_qemu()
    if qemu.path is None:
        return f"link: not measured, because {qemu.reason}"
    require_room(options.ram * ROOM)
    with ExitStack() as stack:
        shared = stack.enter_context(work_folder(SHARED_MEMORY))
        machine = stack.enter_context(machines.linux_machine(qemu, options.ram, options.cache))
        link = stack.enter_context(network.limited_link(options.rate))
        known = facts.collect(shared) | machines.facts(machine, qemu) | {"rate": options.rate}
        files = _save_all(machine, shared, options.jobs)
        records = stack.enter_context(Records(options.output_dir / "link.jsonl", known))
        for number in range(WARM_UP, options.rounds):
            for way in WAYS:
                path = files[way.compression]
                figures = _measure(machine, shared, link, path, way, options.jobs)
                say(f"{way.name}: {figures['wall_s']:.3f} s")
                more = {"destination": SENT, "order": WAYS.index(way), **figures}
                records.keep(described(OPERATION, way.name, number, jobs=options.jobs, **more))
    return [*report(records.results, options, known), f"written: {records.path}"]


def _save_all(machine: Machine, shared: Path, jobs: int) -> dict[str, Path]:
    files = {name: shared / name for name in {way.compression for way in WAYS}}
    with machines.ready(machine, shared) as running:
        running.guest.stop()
        for name, path in files.items():
            running.pause_anew()
            guest_runs.snapmig_save(running, path, jobs, "--compression", name)
    return files


def _measure(machine: Machine, shared: Path, link: Link, path: Path, way: Way, jobs: int) -> Record:
    where = {"incoming": True, "private": True, "before": link.command(1)}
    with machines.started(machine, shared, **where) as running:
        settings = {"multifd_channels": jobs, "multifd_compression": way.wire}
        migration.prepare(running.guest, (MULTIFD,), **settings)
        running.drain()
        running.guest.execute("migrate-incoming", uri=f"tcp:{link.addresses[1]}:{PORT}")
        sent = link.sent(0)
        took, others = watched(
            lambda: guest_runs.until_resumed(
                running, lambda: _send(running, link, path, way, jobs)
            ),
            machine.ram,
        )
        sent = link.sent(0) - sent
    figures = {"wall_s": round(took.wall, 4), "cpu_s": round(took.cpu, 4), "sent_bytes": sent}
    return {**figures, "snapshot_bytes": sizes(path).disk, **others}


def _send(running: Running, link: Link, path: Path, way: Way, jobs: int) -> Timing:
    place = f"tcp:{link.addresses[1]}:{PORT}"
    words = ["--insecure", "--channels", str(jobs), "--wire", way.wire, "--progress", "none"]
    command = [*link.command(0), *PYTHON, "send", *words, "--json", str(path), place]
    timing = run_command(command, cwd=running.folder)
    migration.wait_loaded(running.guest, "the link", guest_runs.SECONDS)
    return timing


def report(results: Results, options: argparse.Namespace, known: dict[str, Any]) -> list[str]:
    """Return the lines about all runs."""
    jobs = options.jobs
    others = results.disturbance(known["machine_processors"])
    where, sent = (OPERATION, SENT, jobs), Column("MiB sent", "sent_bytes", "{:.1f}", MIB)
    beside = "time / pages' (quartiles)", lambda _name: PAGES
    rows = figure_rows(results, where, results.rows(*where, "snapmig"), (CPU, sent), beside)
    pages = results.times(OPERATION, SENT, PAGES, jobs)
    reached = ratio(pages, results.times(OPERATION, SENT, FRAMES, jobs))
    return [
        f"guest     {known['image']}, {known['image_bytes'] / MIB:.0f} MiB",
        f"QEMU      {known['version_qemu']}, {jobs} channels, private memory",
        f"link      {options.rate}, two network namespaces of one machine",
        f"processors taken by others: {others:.0%}",
        "",
        *text_table(list(rows)),
        "",
        f"pages / zstd frames, at least {FEWER:g}: {verdict(reached, FEWER)}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
