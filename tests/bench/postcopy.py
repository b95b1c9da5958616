"""
Measures how soon a guest runs that is restored by postcopy, beside one restored as a whole.

Times are seconds from the start of the command: until the guest runs, until its first output, and
until the command has ended and all of the guest's memory has come.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench import facts, machines
from tests.bench.contestants import PYTHON
from tests.bench.machines import Machine
from tests.bench.measure import CommandError
from tests.bench.runner import SHARED_MEMORY, say, work_folder
from tests.support.guests.build import CACHE
from tests.support.guests.image import parse_size
from tests.support.guests.qemu import Guest, find_qemu

POLL_S = 0.002
PATIENCE_S = 120.0


class Took(NamedTuple):
    """One restore."""

    runs: float
    output: float
    end: float
    before: int
    asked: int


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.postcopy", description=__doc__)
    add = parser.add_argument
    add("--ram", type=parse_size, default=2 << 30, help="of the guest (2G)")
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, default=3, help="(%(default)s)")
    add("--cache", type=Path, default=CACHE, help="where the guest's system is kept")
    options = parser.parse_args()
    qemu = find_qemu()
    with (
        work_folder(SHARED_MEMORY) as folder,
        machines.linux_machine(qemu, options.ram, options.cache) as machine,
    ):
        if machine.kept is None or not machine.kept.exists():
            with machines.ready(machine, folder):
                pass
        print(_measure(machine, folder, options))


def _measure(machine: Machine, folder: Path, options: argparse.Namespace) -> str:
    known = folder / "working-set"
    ways = {
        "whole, via multifd": ("--via", "multifd"),
        "--postcopy": ("--postcopy",),
        "--postcopy --working-set": ("--postcopy", "--working-set", str(known)),
    }
    _restore(machine, folder, ways["--postcopy --working-set"], options.jobs)  # records it
    lines = ["| way | cache | runs, s | first output, s | end, s | sent before | asked for |"]
    lines.append("|---|---|---|---|---|---|---|")
    for cache in ("warm", "cold"):
        took: dict[str, list[Took]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, words in ways.items():
                if cache == "cold":
                    _forget(machine.kept)
                took[name].append(_restore(machine, folder, words, options.jobs))
                say(f"{name}, {cache}: {took[name][-1]}")
        for name, all_of in took.items():
            middle = [statistics.median(values) for values in zip(*all_of, strict=True)]
            times = " | ".join(f"{value:.2f}" for value in middle[:3])
            lines.append(f"| {name} | {cache} | {times} | {middle[3]:.0f} | {middle[4]:.0f} |")
    return "\n".join(lines)


def _forget(path: Path | None) -> None:
    # Written pages are not dropped, so they are written to the disk first.
    fd = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _restore(machine: Machine, folder: Path, words: Sequence[str], jobs: int) -> Took:
    with tempfile.TemporaryDirectory(prefix="guest-", dir=folder) as name:
        monitor = Path(name, "qmp")
        extra = ("-qmp", f"unix:{monitor},server=on,wait=off", "-incoming", "defer")
        config = machine.configure(Path(name, "unused"), extra)
        config.memory = None  # QEMU's own
        with Guest(machine.program, config) as guest:
            time.sleep(1)  # it has started, and its processors are idle
            return _one(guest, machine, f"qmp:{monitor}", words, jobs)


def _one(guest: Guest, machine: Machine, monitor: str, words: Sequence[str], jobs: int) -> Took:
    options = ["-j", str(jobs), "--json", "--progress", "none", *words]
    command = [*PYTHON, "restore", *options, str(machine.kept), monitor]
    started = time.time()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        output = end = 0.0
        while not (output and end):
            now = time.time()
            if not output and guest.serial.exists() and guest.serial.stat().st_size:
                output = now - started
            if not end and process.poll() is not None:
                end = now - started
            if process.returncode or now - started > PATIENCE_S:
                process.kill()
                if process.returncode and process.stderr is not None:
                    raise CommandError(process.stderr.read().decode())
                raise CommandError(f"no output or end in {PATIENCE_S:.0f} s")
            time.sleep(POLL_S)
        answer, _ = process.communicate()
    stamp = guest.wait_event("RESUME", 5)["timestamp"]
    result = json.loads(answer)
    runs = stamp["seconds"] + stamp["microseconds"] / 1e6 - started
    asked = result["packets_asked_for"] or 0
    return Took(runs, output, end, result["packets_before_run"] or 0, asked)


if __name__ == "__main__":
    main()
