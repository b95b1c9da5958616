"""One save or restore of a paused guest by each contestant, and the scan of its memory."""

import errno
import mmap
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from tests.bench.codecs import PACKET, PAGE
from tests.bench.contestants import PYTHON, SNAPMIG, lack
from tests.bench.machines import Running, holes
from tests.bench.measure import Timing, run_command, sync_file
from tests.bench.parallel import ParallelTime, in_processes, populate
from tests.support.guests import migration
from tests.support.guests.migration import MAPPED_RAM, MULTIFD

MAPPED = "mapped-ram"
ZSTD = "exec zstd -1"
LZ4 = "snapmig lz4 1"
OVER_MULTIFD = "snapmig multifd"
"""The same guest, saved as one whose memory is no shared file."""
PRIVATE = ", private memory"
"""Ends the names of restores into a QEMU whose memory is no shared file."""
SECONDS = 300.0
POLL_SECONDS = 0.002
CAPABILITIES = (MULTIFD, MAPPED_RAM, "auto-converge", "background-snapshot")
"""Those that something here sets."""
RESUME_SECONDS = 10.0
USUAL_DOWNTIME_MS = 300
"""QEMU's own."""
LONGEST_DOWNTIME_MS = 2_000_000
"""With it QEMU stops a guest at once, and sends each page once, as snapmig has it."""


@dataclass(frozen=True)
class Took:
    """
    The figures of a run.

    :param wall: seconds until the file is complete and synced, or until the guest runs
    :param cpu: processor seconds of QEMU and of what the contestant started
    :param said: what snapmig says about it
    """

    wall: float
    cpu: float
    said: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestContestant:
    """
    A way to save a paused guest, or to have a QEMU that waits run it again, or both.

    :param prepare: what is set in the monitor before the clock starts
    :param save: None where another contestant's file is restored
    :param restore: None where a file is like another contestant's
    :param package: a Python package that it needs besides its program
    :param file_of: name of that other contestant
    :param private: restores into memory of QEMU's own
    """

    name: str
    role: str
    prepare: Callable[[Running, int], None]
    save: Callable[[Running, Path, int], Took] | None
    restore: Callable[[Running, Path, int], Took] | None
    program: str = "qemu-system-x86_64"
    package: str = ""
    file_of: str = ""
    private: bool = False

    @property
    def lacks(self) -> str:
        """Missing programs that it needs, in words."""
        return lack(self.program, self.package)


def snapmig_save(running: Running, path: Path, jobs: int, *more: str) -> Took:
    """Save by a process of snapmig, from its start to its end."""
    common = ("-j", str(jobs), "--progress", "none", "--json", *more)
    before = running.cpu_seconds()
    timing = run_command([*PYTHON, "save", *common, running.address, str(path)], cwd=running.folder)
    return Took(timing.wall, timing.cpu + running.cpu_seconds() - before, timing.said)


def _lz4_save(running: Running, path: Path, jobs: int) -> Took:
    return snapmig_save(running, path, jobs, "--compression", "lz4", "--level", "1")


def _multifd_save(running: Running, path: Path, jobs: int) -> Took:
    return snapmig_save(running, path, jobs, "--via", "multifd")


def _snapmig_restore(running: Running, path: Path, jobs: int) -> Took:
    common = ("-j", str(jobs), "--progress", "none", "--json")
    command = [*PYTHON, "restore", *common, str(path), running.address]
    return until_resumed(running, lambda: run_command(command, cwd=running.folder))


def until_resumed(running: Running, work: Callable[[], Timing]) -> Took:
    """Have a program load a guest; its time is over when QEMU says that the guest runs."""
    before, begun = running.cpu_seconds(), time.time()
    timing = work()
    wall = _resumed_at(running) - begun
    return Took(wall, timing.cpu + running.cpu_seconds() - before, timing.said)


def _mapped_save(running: Running, path: Path, _jobs: int) -> Took:
    before, begun = running.cpu_seconds(), time.monotonic()
    migration.save_to(running.guest, f"file:{path}", SECONDS)
    sync_file(path)
    wall = time.monotonic() - begun
    return Took(wall, running.cpu_seconds() - before)


def _mapped_restore(running: Running, path: Path, _jobs: int) -> Took:
    return _load(running, f"file:{path}")


def _zstd_save(running: Running, path: Path, _jobs: int) -> Took:
    # The name comes last: QEMU may be done with its pipe before the program is with the file.
    part, final = shlex.quote(f"{path}.part"), shlex.quote(str(path))
    before, begun = running.cpu_seconds(), time.monotonic()
    uri = f"exec:zstd -1 -T0 -q > {part} && mv {part} {final}"
    migration.save_to(running.guest, uri, SECONDS)
    while not path.exists():
        if time.monotonic() > begun + SECONDS:
            raise migration.MigrationError(f"{uri}: no file")
        time.sleep(POLL_SECONDS)
    sync_file(path)
    wall = time.monotonic() - begun
    return Took(wall, running.cpu_seconds() - before)


def _zstd_restore(running: Running, path: Path, _jobs: int) -> Took:
    return _load(running, f"exec:zstd -dcq {shlex.quote(str(path))}")


def _load(running: Running, uri: str) -> Took:
    before, begun = running.cpu_seconds(), time.time()
    migration.load_from(running.guest, uri, SECONDS)
    wall = _resumed_at(running) - begun
    return Took(wall, running.cpu_seconds() - before)


def _resumed_at(running: Running) -> float:
    # QEMU's own time of the moment, by the clock of the machine.
    stamp = running.guest.wait_event("RESUME", RESUME_SECONDS)["timestamp"]
    return float(stamp["seconds"] + stamp["microseconds"] / 1e6)


def set_capabilities(
    running: Running, jobs: int, *wanted: str, downtime_ms: int = USUAL_DOWNTIME_MS
) -> None:
    """
    Have QEMU migrate with some capabilities and none of the others, and as many channels as jobs.

    :raises MigrationError: QEMU, or the kernel, can't
    """
    off = [{"capability": name, "state": False} for name in CAPABILITIES]
    running.guest.execute("migrate-set-capabilities", capabilities=off)
    channels = {"multifd_channels": jobs} if MULTIFD in wanted else {}
    migration.prepare(running.guest, wanted, downtime_limit=downtime_ms, **channels)


def set_none(running: Running, jobs: int) -> None:
    """Have QEMU migrate in its usual way."""
    set_capabilities(running, jobs)


def _set_mapped(running: Running, jobs: int) -> None:
    set_capabilities(running, jobs, MAPPED_RAM, MULTIFD)


_BOTH = (
    GuestContestant(SNAPMIG, SNAPMIG, set_none, snapmig_save, _snapmig_restore),
    GuestContestant(OVER_MULTIFD, SNAPMIG, set_none, _multifd_save, None),
    GuestContestant(LZ4, SNAPMIG, set_none, _lz4_save, _snapmig_restore, package="lz4"),
    GuestContestant(MAPPED, "peer", _set_mapped, _mapped_save, _mapped_restore),
    GuestContestant(ZSTD, "peer", set_none, _zstd_save, _zstd_restore, "zstd"),
)


def _into_private(one: GuestContestant) -> GuestContestant:
    return replace(one, name=one.name + PRIVATE, save=None, file_of=one.name, private=True)


CONTESTANTS = (*_BOTH, *(_into_private(one) for one in _BOTH if one.restore))


def scan(memory: Path, jobs: int) -> ParallelTime:
    """Look at all memory once: which pages are zero, and the digest of each packet's others."""
    gaps = holes(memory)
    size = memory.stat().st_size
    with memory.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
    pages = np.frombuffer(mapping, np.uint8).reshape(-1, PAGE)
    packets = [at for at in range(0, size, PACKET) if not _inside(at, min(at + PACKET, size), gaps)]

    def ready(number: int) -> list[int]:
        mine = packets[number::jobs]
        for at in mine:
            populate(mapping, at, min(PACKET, size - at))
        return mine

    def work(mine: list[int]) -> None:
        for at in mine:
            _digest(pages[at // PAGE : (at + PACKET) // PAGE])

    return in_processes(jobs, work, ready)


def _digest(pages: Any) -> bytes:
    mask = pages.view(np.bool_).any(axis=1)
    return xxhash.xxh3_128_digest((pages if mask.all() else pages[mask]).data)


def _inside(start: int, end: int, ranges: list[tuple[int, int]]) -> bool:
    return any(first <= start and end <= last for first, last in ranges)


def still_cached(path: Path, samples: int = 32) -> float:
    """Return the share of some bytes of a file, not of its holes, that are in memory."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # looking reads nothing ahead
        found = [_is_cached(fd, _data_from(fd, size * n // samples)) for n in range(samples)]
    return sum(found) / samples


def _data_from(fd: int, offset: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.lseek(fd, 0, os.SEEK_DATA)  # the file ends in a hole


def _is_cached(fd: int, offset: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return True  # tmpfs does not say: it has nothing that is not in memory
