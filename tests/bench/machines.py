"""The guests that are saved and restored, what stands in their memory file, and how they start."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.contestants import PYTHON
from tests.bench.measure import CommandError, run_command
from tests.bench.rounds import say
from tests.support.guests import kernel, linux
from tests.support.guests.qemu import REFUSED, Guest, GuestConfig, GuestError, Qemu
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout

MIB = 1 << 20
BOOT_SECONDS = 300
SECONDS_PER_GIB = 300
DRAIN_SECONDS = 0.05
STEP = 1 << 21
EVENT = "no such event"
TICKS = slice(11, 15)
"""User and system time of a process and of the children that it waited for, in /proc/PID/stat."""

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Machine:
    """
    A kind of guest.

    :param configure: gives the configuration, from the file of its memory, None for private memory,
        and further arguments
    :param wait_ready: waits until a started one has filled its memory
    :param kept: a snapshot of one that is ready, made where it is missing, instead of a long start
    """

    name: str
    ram: int
    program: str
    configure: Callable[[Path | None, tuple[str, ...]], GuestConfig]
    wait_ready: Callable[[Guest], None]
    kept: Path | None = None


@dataclass(frozen=True)
class Running:
    """
    A guest under QEMU, the file of its memory, and the monitor that snapmig may have.

    :param folder: where programs run, and keep their byte code
    """

    guest: Guest
    folder: Path
    memory: Path
    monitor: Path

    @property
    def address(self) -> str:
        """The guest as snapmig names it."""
        return f"qmp:{self.monitor}"

    def pause_anew(self) -> None:
        """Let the guest run for a moment and pause it: QEMU saves none twice in between."""
        self.guest.cont()
        self.drain()
        self.guest.stop()

    def drain(self) -> None:
        """Forget all events so far, for some are of saves that others asked for."""
        with suppress(GuestError):
            self.guest.wait_event(EVENT, DRAIN_SECONDS)

    def cpu_seconds(self) -> float:
        """Processor time of QEMU and of the programs that it started and that ended."""
        words = Path(f"/proc/{self.guest.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, words[TICKS])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(
    machine: Machine,
    folder: Path,
    *,
    incoming: bool = False,
    private: bool = False,
    before: Sequence[str] = (),
) -> Iterator[Running]:
    """
    Start QEMU with its memory in a folder of shared memory; all of it goes with the block.

    :param private: its memory is its own; then :attr:`Running.memory` is not there
    :param before: words before QEMU's command
    """
    with tempfile.TemporaryDirectory(prefix="guest-", dir=folder) as name:
        memory, monitor = Path(name, "ram"), Path(name, "qmp")
        extra = ("-qmp", f"unix:{monitor},server=on,wait=off")
        wait = ("-incoming", "defer") if incoming else ()
        config = machine.configure(None if private else memory, (*extra, *wait))
        with Guest(machine.program, replace(config, before=before)) as guest:
            guest.expected_words = REFUSED
            yield Running(guest, folder, memory, monitor)


@contextmanager
def ready(machine: Machine, folder: Path) -> Iterator[Running]:
    """Give a guest that has filled its memory and runs."""
    if machine.kept is None:
        with started(machine, folder) as running:
            machine.wait_ready(running.guest)
            yield running
        return
    if not machine.kept.exists():
        _keep(machine, folder, machine.kept)
    with started(machine, folder, incoming=True) as running:
        try:
            _snapmig("restore", str(machine.kept), running.address, folder=folder)
        except CommandError:
            machine.kept.unlink()
            raise
        running.drain()
        yield running


def _keep(machine: Machine, folder: Path, path: Path) -> None:
    say(f"starting a {machine.name} once, which takes minutes for each GiB; kept as {path.name}")
    with started(machine, folder) as running:
        machine.wait_ready(running.guest)
        path.parent.mkdir(parents=True, exist_ok=True)
        _snapmig("save", running.address, str(path), folder=folder)


def _snapmig(verb: str, *arguments: str, folder: Path) -> None:
    run_command([*PYTHON, verb, "--progress", "none", *arguments], cwd=folder)


@contextmanager
def linux_machine(qemu: Qemu, ram: int, cache: Path) -> Iterator[Machine]:
    """Give the Linux guest of ``make guest-image``."""
    system = linux.prepare(ram, cache)
    with tempfile.TemporaryDirectory(prefix="boot-") as name:
        initramfs = Path(name, "initramfs")
        kernel.write_initramfs(system.kernel, system.busybox, linux.WORKLOAD, initramfs)
        boot = linux.boot_arguments(system, initramfs)
        patience = BOOT_SECONDS + SECONDS_PER_GIB * ram / (1 << 30)
        yield Machine(
            "Linux guest",
            ram,
            str(qemu.path),
            lambda memory, extra: GuestConfig(ram, memory, extra=(*boot, *extra)),
            lambda guest: _wait_linux(guest, patience),
            cache / f"bench-{ram // MIB}M-{linux.recipe(ram)}-{qemu.version}.snap",
        )


def tiny_machine(qemu: Qemu, layout: Layout, folder: Path, name: str = "tiny guest") -> Machine:
    """Return a tiny guest, its boot sector in a folder."""
    place = Path(tempfile.mkdtemp(prefix="sector-", dir=folder))
    sector = tiny.write_sector(place, layout)
    return Machine(
        name,
        layout.ram,
        str(qemu.path),
        lambda memory, extra: tiny.config(sector, layout, memory=memory, extra=extra),
        _wait_tiny,
    )


def _wait_linux(guest: Guest, patience: float) -> None:
    guest.wait_serial(linux.READY, patience)


def _wait_tiny(guest: Guest) -> None:
    tiny.wait_passes(guest, 2)


def holes(path: Path) -> Ranges:
    """Return the ranges of a file that take no space."""
    found, end = [], 0
    with path.open("rb") as file:
        size = path.stat().st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                start = size  # no data from here on
            if start > end:
                found.append((end, start))
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE) if start < size else size
    return found


def give_back(path: Path, ranges: Ranges) -> None:
    """Punch what is zero in ranges that were holes; the guest, paused, sees no difference."""
    from snapmig.system.libc import punch_hole

    with path.open("r+b") as file:
        for first, end in ranges:
            for offset in range(first, end, STEP):
                size = min(STEP, end - offset)
                if not os.pread(file.fileno(), size, offset).strip(b"\0"):
                    punch_hole(file.fileno(), offset, size)


def forget_pages(path: Path) -> None:
    """Have the kernel drop a file's pages, which needs no privileges once they are written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load_pages(path: Path) -> None:
    """Read a file, so that all of it is in memory."""
    with path.open("rb", buffering=0) as file:
        while file.read(STEP):
            pass


def facts(machine: Machine, qemu: Qemu) -> dict[str, Any]:
    """Return what the results say about a guest."""
    return {"image": machine.name, "image_bytes": machine.ram, "version_qemu": qemu.version}
