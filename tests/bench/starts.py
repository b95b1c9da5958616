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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import snapmig
from snapmig.operations.runs.device_stream import device_stream, mapped_blocks
from snapmig.operations.runs.random_access import RandomAccess
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
from tests.support.objects.proxy import Delay, Proxy
from tests.support.objects.server import BUCKET, serving, settings

POLL_S = 0.002
PATIENCE_S = 180.0
MINUTE_S = 60.0
WHOLE_S = 10.0
LATENCY_S = 0.02
ERRORS = "errors"
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


@dataclass
class Bench:
    """Everything that the ways share."""

    machine: Machine
    folder: Path
    snapshot: Path
    mapped: Path
    plain: Path
    state: Path
    jobs: int
    packets: int
    url: str = ""
    proxy: Proxy | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """Whatever is to be cold."""
        return (self.snapshot, self.mapped, self.plain, self.state)

    def qemu(self, serial: Path, backend: str) -> list[str]:
        """Return the command of a QEMU with a memory backend, without what comes in."""
        config = self.machine.configure(None, ())
        return [
            *(self.machine.program, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-reboot", "-accel", config.accel, "-smp", str(config.cpus)),
            *("-object", f"{backend},id=ram,size={config.ram}"),
            *("-machine", f"{config.machine},memory-backend=ram", "-m", f"{config.ram >> 10}K"),
            *("-serial", f"file:{serial}", *config.extra),
        ]


Start = Callable[[Bench, str, Path], "subprocess.Popen[bytes] | Guest"]


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
    lines = [f"the guest has {bench.packets} packets"]
    for cache in options.caches.split(","):
        where = ("start", cache, options.jobs)
        names = records.results.rows(*where, "snapmig", "peer")
        rows = figure_rows(records.results, where, names, COLUMNS, timed=None)
        lines += ["", cache, *text_table(list(rows))]
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


def _run(words: Sequence[str], bench: Bench, path: str, folder: Path) -> subprocess.Popen[bytes]:
    qemu = bench.qemu(folder / "serial", "memory-backend-memfd,share=on")
    options = [word.format(folder=folder, known=bench.folder) for word in words]
    command = [*PYTHON, "run", "-j", str(bench.jobs), *options, path, "--", *qemu]
    environment = {**os.environ, **bench.environment}
    with (folder / ERRORS).open("wb") as errors:
        return subprocess.Popen(command, stderr=errors, env=environment)


class _Plain(Guest):
    # A guest that tests drive, started by a command of ours.
    def __init__(self, bench: Bench, backend: str, folder: Path) -> None:
        super().__init__(bench.machine.program, bench.machine.configure(None, ()))
        self._command = bench.qemu(folder / "serial", backend)

    def arguments(self) -> list[str]:
        return [*self._command, "-incoming", "defer", "-qmp", f"unix:{self.folder / 'qmp'}"]

    def load(self, uri: str) -> None:
        self.execute("migrate-incoming", uri=uri)
        while self.execute("query-migrate").get("status") != "completed":
            time.sleep(POLL_S)
        if self.execute("query-status")["status"] != "running":
            self.cont()


def _load(bench: Bench, _path: str, folder: Path) -> Guest:
    guest = _Plain(bench, "memory-backend-memfd,share=on", folder)
    guest.start()
    migration.prepare(guest, (MAPPED_RAM, MULTIFD), multifd_channels=bench.jobs)
    guest.load(f"file:{bench.mapped}")
    return guest


def _map(bench: Bench, _path: str, folder: Path) -> Guest:
    (block,) = [each for each in snapmig.info(bench.plain).blocks if each.name == "ram"]
    backend = (
        f"memory-backend-file,mem-path={bench.plain},offset={block.offset},"
        "share=off,readonly=on,rom=off"
    )
    guest = _Plain(bench, backend, folder)
    guest.start()
    guest.load(f"file:{bench.state}")
    return guest


MOUNT = ("--mount", "{folder}/mnt")
NEW = ("--working-set", "{folder}/set")
KNOWN = ("--working-set", "{known}/mount-set")
SENT = ("--working-set", "{known}/postcopy-set")
FULLER = "run --postcopy --working-set of a mount"
"""From a slow store a guest asks for packets that come unasked from a disk, and so are not in the
set that postcopy records there."""
FILES: dict[str, tuple[str, Start]] = {
    "mapped-ram, QEMU's own load": ("mapped", _load),
    "uncompressed, mapped by QEMU": ("plain", _map),
    "run --no-postcopy": ("snapshot", partial(_run, ("--no-postcopy",))),
    "run --postcopy": ("snapshot", partial(_run, ("--postcopy",))),
    "run --postcopy --working-set": ("snapshot", partial(_run, ("--postcopy", *SENT))),
    FULLER: ("snapshot", partial(_run, ("--postcopy", *KNOWN))),
    "run --mount": ("snapshot", partial(_run, (*MOUNT, *NEW))),
    "run --mount --working-set": ("snapshot", partial(_run, (*MOUNT, *KNOWN))),
}
"""Ways with what they read; a mount without a working set tells which packets were touched."""
OBJECTS = tuple(name for name, (what, _) in FILES.items() if what == "snapshot")


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
        runs_s = None
        guest = start(bench, bench.url if cache == OBJECT else str(path), folder)
        with _ended(guest):
            while not (serial.exists() and serial.stat().st_size):
                _check(guest, began, folder)
                if runs_s is None and _says_that_it_runs(folder):
                    runs_s = time.monotonic() - began
                time.sleep(POLL_S)
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


def _asked(bench: Bench) -> tuple[int, int]:
    if bench.proxy is None:
        return 0, 0
    return len(bench.proxy.requests), bench.proxy.answered


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
def _ended(guest: subprocess.Popen[bytes] | Guest) -> Iterator[None]:
    try:
        yield
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
