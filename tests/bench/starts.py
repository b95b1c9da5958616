"""
Measures how soon a guest of a snapshot runs, from the command until its first new output.

Each way starts QEMU itself. Those of snapmig are `snapmig run`, whole, by postcopy and from a
mount; beside them QEMU loads its own mapped-ram file, and maps an uncompressed snapshot. Files are
in the page cache (warm) or not (cold), or are objects behind a network whose requests take 20 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import snapmig
from snapmig.operations.runs.device_stream import device_stream, mapped_blocks
from snapmig.operations.runs.random_access import RandomAccess
from tests.bench import facts, machines
from tests.bench.contestants import PYTHON
from tests.bench.guest_runs import set_capabilities
from tests.bench.measure import CommandError
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with, say
from tests.bench.runner import SHARED_MEMORY, work_folder
from tests.bench.start_ways import (
    ERRORS,
    FILES,
    FULLER,
    KNOWN,
    MOUNT,
    OBJECTS,
    POLL_S,
    Bench,
    run_guest,
)
from tests.bench.tables import Column, figure_rows, text_table
from tests.support.guests import migration
from tests.support.guests.build import CACHE
from tests.support.guests.image import parse_size
from tests.support.guests.migration import MAPPED_RAM, MULTIFD
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import Guest, GuestError, find_qemu
from tests.support.objects.proxy import Delay, Proxy
from tests.support.objects.server import BUCKET, serving, settings

PATIENCE_S = 180.0
MINUTE_S = 60.0
WHOLE_S = 10.0
LATENCY_S = 0.02
WARM, COLD, OBJECT = "warm", "cold", "object"


class Took(NamedTuple):
    """
    One start.

    :param output_s: until the first output
    :param runs_s: until the guest ran; None where that is said later or by nobody
    :param touched: packets that the guest had touched by then; None where nobody counts
    :param read_share: part of a cold file in the page cache by then
    :param requests: for the object by then
    :param read_bytes: answers to them
    :param lines: of output in the first minute
    """

    output_s: float
    runs_s: float | None = None
    touched: int | None = None
    read_share: float | None = None
    requests: int | None = None
    read_bytes: int | None = None
    lines: int | None = None


COLUMNS = (
    Column("first output, s", "output_s"),
    Column("guest runs, s", "runs_s"),
    Column("packets touched", "touched", "{:.0f}"),
    Column("file read %", "read_share", "{:.0f}", 0.01),
    Column("requests", "requests", "{:.0f}"),
    Column("MiB read", "read_bytes", "{:.0f}", 1 << 20),
    Column("lines in a minute", "lines", "{:.0f}"),
)


def main(arguments: Sequence[str]) -> int:
    """Run and print a table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.starts", description=__doc__)
    add = parser.add_argument
    add("--ram", type=parse_size, default=2 << 30, help="of the guest (2G)")
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, default=3, help="(%(default)s)")
    add("--minute", action="store_true", help="count output in the first minute, in one more round")
    add("--caches", default=f"{WARM},{COLD},{OBJECT}", help="(%(default)s)")
    add("--cache", type=Path, default=CACHE, help="where the guest's system is kept")
    add("--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    return main_with(lambda: _bench(options), GuestError, PackagesError)


def _bench(options: argparse.Namespace) -> list[str]:
    with ExitStack() as stack:
        bench = _prepare(stack, options)
        known = facts.collect(bench.folder) | machines.facts(bench.machine, find_qemu())
        path = options.output_dir / "starts.jsonl"
        records = stack.enter_context(Records(path, {**known, "packets": bench.packets}))
        _measure(bench, options, records)
        caches = options.caches.split(",")
        decoded = {cache: _decoded(bench, cache) for cache in caches if options.rounds}
    lines = [f"the guest has {bench.packets} packets"]
    for cache in caches:
        where = ("start", cache, options.jobs)
        names = records.results.rows(*where, "snapmig", "peer")
        rows = figure_rows(records.results, where, names, COLUMNS, timed=None)
        lines += ["", cache, *text_table(list(rows)), *decoded.get(cache, ())]
    return [*lines, f"written: {records.path}"]


def _prepare(stack: ExitStack, options: argparse.Namespace) -> Bench:
    folder = stack.enter_context(work_folder(SHARED_MEMORY))
    machine = stack.enter_context(machines.linux_machine(find_qemu(), options.ram, options.cache))
    kept = Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="starts-", dir=options.cache))
    )
    mapped, plain, state = kept / MAPPED_RAM, kept / "plain", kept / "state"
    with machines.ready(machine, folder) as running:
        running.guest.stop()
        set_capabilities(running, options.jobs, MAPPED_RAM, MULTIFD)
        migration.save_to(running.guest, f"file:{mapped}", PATIENCE_S)
    if machine.kept is None:
        raise CommandError("the guest has no snapshot")
    snapmig.repack(machine.kept, plain, compression="none")
    with closing(RandomAccess(machine.kept, jobs=options.jobs, cache=1 << 26)) as memory:
        state.write_bytes(device_stream(memory.file, mapped_blocks(memory.file), memory.read))
        packets = memory.geometry.packet_count
    bench = Bench(machine, folder, machine.kept, mapped, plain, state, options.jobs, packets)
    if OBJECT in options.caches:
        server = stack.enter_context(serving())
        proxy = stack.enter_context(closing(Proxy(server.port)))
        bench.environment = settings(proxy.url, folder)
        bench.proxy = proxy
        bench.url = f"s3://{BUCKET}/guest.snap"
        _snapmig(bench, "repack", str(machine.kept), bench.url)
        proxy.rule = Delay(LATENCY_S)
    return bench


def _snapmig(bench: Bench, *words: str) -> None:
    environment = {**os.environ, **bench.environment}
    subprocess.run([*PYTHON, *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def _measure(bench: Bench, options: argparse.Namespace, records: Records) -> None:
    for name in ("run --postcopy --working-set", "run --mount --working-set"):
        _start(bench, name, WARM, whole=True)  # records it
    minutes = [options.rounds] if options.minute else []
    for cache in options.caches.split(","):
        names = OBJECTS if cache == OBJECT else tuple(name for name in FILES if name != FULLER)
        for number in [*range(options.rounds), *minutes]:
            for name in in_turn(names, number):
                took = _start(bench, name, cache, minute=number in minutes)
                say(f"{name}, {cache}: {took}")
                role = "snapmig" if name in OBJECTS else "peer"
                more = {"destination": cache, "order": list(FILES).index(name), "role": role}
                records.keep(
                    described("start", name, number, jobs=options.jobs, **more, **took._asdict())
                )


def _start(
    bench: Bench, name: str, cache: str, *, minute: bool = False, whole: bool = False
) -> Took:
    what, start = FILES[name]
    path = getattr(bench, what)
    if cache == COLD:
        for each in bench.files:
            _forget(each)
    before = _asked(bench)
    with tempfile.TemporaryDirectory(prefix="start-", dir=bench.folder) as made:
        folder = Path(made)
        (folder / "mnt").mkdir()
        serial = folder / "serial"
        began = time.monotonic()
        guest = start(bench, bench.url if cache == OBJECT else str(path), folder)
        with _ended(guest):
            runs_s = _wait_for_output(guest, began, folder)
            took = Took(time.monotonic() - began, runs_s)
            if cache == COLD:
                took = took._replace(read_share=_cached(path))
            if cache == OBJECT:
                requests, read = (
                    now - then for now, then in zip(_asked(bench), before, strict=True)
                )
                took = took._replace(requests=requests, read_bytes=read)
            if whole:
                time.sleep(WHOLE_S)
            if minute:
                time.sleep(max(0.0, MINUTE_S - (time.monotonic() - began)))
                took = took._replace(lines=serial.read_bytes().count(b"\n"))
        if not minute and name == "run --mount":
            took = took._replace(touched=_touched(folder / "set"))
    return took


def _decoded(bench: Bench, cache: str) -> list[str]:
    # From mounts that are there before: those of the command have their log elsewhere.
    return [
        f"{label}: {_decoded_from_mount(bench, cache, words)}"
        for label, words in (("run --mount", ()), ("run --mount --working-set", KNOWN))
    ]


def _decoded_from_mount(bench: Bench, cache: str, words: Sequence[str]) -> str:
    path = bench.url if cache == OBJECT else str(bench.snapshot)
    with tempfile.TemporaryDirectory(prefix="start-", dir=bench.folder) as made:
        folder = Path(made)
        (folder / "mnt").mkdir()
        known = [word.format(known=bench.folder) for word in words]
        log = ("--log", str(folder / "log"), "-j", str(bench.jobs))
        _snapmig(bench, "mount", *log, *known, path, str(folder / "mnt"))
        began = time.monotonic()
        with _ended(run_guest(MOUNT, bench, path, folder)) as guest:
            _wait_for_output(guest, began, folder)
        _snapmig(bench, "umount", str(folder / "mnt"))
        return (folder / "log").read_text().rpartition(" is unmounted: ")[2].strip()


def _asked(bench: Bench) -> tuple[int, int]:
    if bench.proxy is None:
        return 0, 0
    return len(bench.proxy.requests), bench.proxy.answered


def _wait_for_output(
    guest: subprocess.Popen[bytes] | Guest, began: float, folder: Path
) -> float | None:
    serial, runs_s = folder / "serial", None
    while not (serial.exists() and serial.stat().st_size):
        _check(guest, began, folder)
        if runs_s is None and _says_that_it_runs(folder):
            runs_s = time.monotonic() - began
        time.sleep(POLL_S)
    return runs_s


def _says_that_it_runs(folder: Path) -> bool:
    errors = folder / ERRORS
    return errors.exists() and b"the guest runs" in errors.read_bytes()


def _touched(path: Path) -> int:
    # The server writes it after the last user of the mount has gone.
    end = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < end:
        time.sleep(POLL_S)
    return len(json.loads(path.read_bytes())["packets"])


@contextmanager
def _ended(
    guest: subprocess.Popen[bytes] | Guest,
) -> Iterator[subprocess.Popen[bytes] | Guest]:
    try:
        yield guest
    finally:
        if isinstance(guest, Guest):
            guest.quit()
        else:
            guest.send_signal(signal.SIGTERM)
            guest.wait(PATIENCE_S)


def _check(guest: subprocess.Popen[bytes] | Guest, began: float, folder: Path) -> None:
    if time.monotonic() - began > PATIENCE_S:
        raise CommandError(f"no output in {PATIENCE_S:.0f} s")
    if not isinstance(guest, Guest) and guest.poll() is not None:
        raise CommandError((folder / ERRORS).read_text())


def _forget(path: Path) -> None:
    # Written pages are not dropped, so they are written to the disk first.
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _cached(path: Path) -> float:
    found = subprocess.run(
        ["fincore", "--bytes", "--raw", "--noheadings", "--output", "RES,SIZE", path],
        check=True,
        capture_output=True,
        text=True,
    )
    resident, size = map(int, found.stdout.split())
    return resident / size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
