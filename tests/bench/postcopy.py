"""
Measures how soon a guest runs that is restored by postcopy, beside loads of all of it first.

Times are seconds from the start of the command: until the guest runs, until its first output, and
until the command has ended and all of the guest's memory has come.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.bench import facts, machines
from tests.bench.contestants import PYTHON
from tests.bench.guest_runs import set_capabilities
from tests.bench.machines import Machine
from tests.bench.measure import CommandError
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with, say
from tests.bench.runner import SHARED_MEMORY, work_folder
from tests.bench.tables import Column, figure_rows, text_table
from tests.support.guests import migration
from tests.support.guests.build import CACHE
from tests.support.guests.image import parse_size
from tests.support.guests.migration import MAPPED_RAM, MULTIFD
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import Guest, GuestError, find_qemu

POLL_S = 0.002
PATIENCE_S = 120.0


class Took(NamedTuple):
    """One restore: seconds, packets sent before the guest ran, and packets that it asked for."""

    runs_s: float
    output_s: float
    end_s: float
    before: int
    asked: int


CACHES = ("warm", "cold")
LOAD = "mapped-ram, QEMU's own load"
COLUMNS = (
    Column("runs, s", "runs_s"),
    Column("first output, s", "output_s"),
    Column("end, s", "end_s"),
    Column("sent before", "before", "{:.0f}"),
    Column("asked for", "asked", "{:.0f}"),
)


def main(arguments: Sequence[str]) -> int:
    """Run and print a table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.postcopy", description=__doc__)
    add = parser.add_argument
    add("--ram", type=parse_size, default=2 << 30, help="of the guest (2G)")
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, default=3, help="(%(default)s)")
    add("--cache", type=Path, default=CACHE, help="where the guest's system is kept")
    add("--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    return main_with(lambda: _bench(options), GuestError, PackagesError)


def _bench(options: argparse.Namespace) -> list[str]:
    qemu = find_qemu()
    with (
        work_folder(SHARED_MEMORY) as folder,
        machines.linux_machine(qemu, options.ram, options.cache) as machine,
        tempfile.TemporaryDirectory(prefix="mapped-", dir=options.cache) as cached,
    ):
        mapped = Path(cached, MAPPED_RAM)
        with machines.ready(machine, folder) as running:
            running.guest.stop()
            set_capabilities(running, options.jobs, MAPPED_RAM, MULTIFD)
            migration.save_to(running.guest, f"file:{mapped}", PATIENCE_S)
        known = facts.collect(folder) | machines.facts(machine, qemu)
        with Records(options.output_dir / "postcopy.jsonl", known) as records:
            _measure(machine, folder, mapped, options, records)
    lines = []
    for cache in CACHES:
        where = ("restore", cache, options.jobs)
        names = records.results.rows(*where, "snapmig", "peer")
        rows = figure_rows(records.results, where, names, COLUMNS, timed=None)
        lines += ["", f"{cache} cache", *text_table(list(rows))]
    return [*lines, f"written: {records.path}"]


def _measure(
    machine: Machine, folder: Path, mapped: Path, options: argparse.Namespace, records: Records
) -> None:
    known = folder / "working-set"
    if machine.kept is None:
        raise CommandError("the guest has no snapshot")
    whole = partial(_Command, machine.kept, options.jobs)
    ways: dict[str, tuple[Path, Callable[[Guest, str], Restore]]] = {
        LOAD: (mapped, partial(_Load, mapped, options.jobs)),
        "whole, via multifd": (machine.kept, partial(whole, ("--via", "multifd"))),
        "--postcopy": (machine.kept, partial(whole, ("--postcopy",))),
        "--postcopy --working-set": (
            machine.kept,
            partial(whole, ("--postcopy", "--working-set", str(known))),
        ),
    }
    _restore(machine, folder, ways["--postcopy --working-set"][1])  # records it
    for cache in CACHES:
        for number in range(options.rounds):
            for name in in_turn(list(ways), number):
                path, begin = ways[name]
                if cache == "cold":
                    _forget(path)
                took = _restore(machine, folder, begin)
                say(f"{name}, {cache}: {took}")
                more = {"destination": cache, "order": list(ways).index(name)}
                more |= {"role": "peer" if name == LOAD else "snapmig", **took._asdict()}
                records.keep(described("restore", name, number, jobs=options.jobs, **more))


def _forget(path: Path) -> None:
    # Written pages are not dropped, so they are written to the disk first.
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _restore(machine: Machine, folder: Path, begin: Callable[[Guest, str], Restore]) -> Took:
    with tempfile.TemporaryDirectory(prefix="guest-", dir=folder) as name:
        monitor = Path(name, "qmp")
        extra = ("-qmp", f"unix:{monitor},server=on,wait=off", "-incoming", "defer")
        config = machine.configure(Path(name, "unused"), extra)
        config.memory = None  # QEMU's own
        with Guest(machine.program, config) as guest:
            time.sleep(1)  # it has started, and its processors are idle
            return _one(guest, f"qmp:{monitor}", begin)


def _one(guest: Guest, monitor: str, begin: Callable[[Guest, str], Restore]) -> Took:
    started = time.time()
    output = end = 0.0
    with closing(begin(guest, monitor)) as restore:
        while not (output and end):
            now = time.time()
            if not output and guest.serial.exists() and guest.serial.stat().st_size:
                output = now - started
            if not end and restore.is_over():
                end = now - started
            if now - started > PATIENCE_S:
                raise CommandError(f"no output or end in {PATIENCE_S:.0f} s")
            time.sleep(POLL_S)
        result = restore.result()
    stamp = guest.wait_event("RESUME", 5)["timestamp"]
    runs = stamp["seconds"] + stamp["microseconds"] / 1e6 - started
    asked = result.get("packets_asked_for") or 0
    return Took(runs, output, end, result.get("packets_before_run") or 0, asked)


class Restore(Protocol):
    """A restore under way."""

    def is_over(self) -> bool:
        """Return True once all of the guest has come."""

    def result(self) -> dict[str, Any]:
        """Return the facts of one that is over."""

    def close(self) -> None:
        """End it."""


class _Command:
    def __init__(
        self, path: Path, jobs: int, words: Sequence[str], _guest: Guest, monitor: str
    ) -> None:
        fixed = ["-j", str(jobs), "--json", "--progress", "none", *words]
        pipe = subprocess.PIPE
        command = [*PYTHON, "restore", *fixed, str(path), monitor]
        self._process = subprocess.Popen(command, stdout=pipe, stderr=pipe)

    def is_over(self) -> bool:
        if self._process.poll():
            raise CommandError(self._process.communicate()[1].decode())
        return self._process.returncode is not None

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._process.communicate()[0])
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Load:
    def __init__(self, path: Path, jobs: int, guest: Guest, _monitor: str) -> None:
        migration.prepare(guest, (MAPPED_RAM, MULTIFD), multifd_channels=jobs)
        guest.execute("migrate-incoming", uri=f"file:{path}")
        self._guest = guest

    def is_over(self) -> bool:
        if self._guest.execute("query-migrate").get("status") != "completed":
            return False
        if self._guest.execute("query-status")["status"] != "running":
            self._guest.cont()
        return True

    def result(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
