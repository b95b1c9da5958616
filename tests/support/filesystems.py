"""Filesystems mounted by tests, and memory without a name."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snapmig.system.libc import punch_hole
from tests.support.requirements import lacks

HUGE = 2 << 20
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_SMALL_DISK = 8 << 20
_BLKIO = Path("/sys/fs/cgroup/blkio")


@contextmanager
def mounted(kind: str, place: Path, options: str = "defaults") -> Iterator[Path]:
    """Mount a new filesystem of a kind, and unmount it afterwards."""
    place.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, kind, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def huge_pages(count: int) -> Iterator[None]:
    """
    Add huge pages of 2 MiB to the kernel's pool, and take them back afterwards.

    The pool is the machine's, and tests may run side by side: those that change it wait.
    """
    pool = _POOL / "nr_hugepages"
    with pool.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = int(pool.read_text())
        try:
            _set_size(pool, before + count)
            yield
        finally:
            pool.write_text(f"{before}\n")


def _set_size(pool: Path, count: int) -> None:
    # After many tests free memory may lie in pieces, and cached files between them.
    for name in ("drop_caches", "compact_memory", ""):
        pool.write_text(f"{count}\n")
        if int(pool.read_text()) == count:
            return
        if name:
            Path("/proc/sys/vm", name).write_text("1\n")
    raise AssertionError("the kernel has no huge pages left")


@contextmanager
def memfd(content: bytes) -> Iterator[Path]:
    """Give the path of nameless memory, as ``/proc/PID/fd/N``."""
    fd = os.memfd_create("guest")
    try:
        os.ftruncate(fd, len(content))
        os.pwrite(fd, content, 0)
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)


@contextmanager
def deleted(path: Path, content: bytes) -> Iterator[Path]:
    """Give the path of an open file without a name."""
    path.write_bytes(content)
    with path.open("r+b") as file:
        path.unlink()
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


@contextmanager
def failing(image: Path, place: Path) -> Iterator[Callable[[Path, range], None]]:
    """
    Mount a small disk that can lose its end, which then gives errors.

    :param image: the file behind the disk
    :returns: a function that loses a range of a file on it
    """
    with image.open("wb") as file:
        file.truncate(_SMALL_DISK)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)

    def lose(path: Path, lost: range) -> None:
        with path.open("rb+", 0) as file:
            os.truncate(image, _move_to_end(file.fileno(), lost, place))
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    try:
        yield lose
    finally:
        os.truncate(image, _SMALL_DISK)
        subprocess.run(["umount", place], check=True)


def _move_to_end(fd: int, part: range, place: Path) -> int:
    # When the disk is full of other files, the last one's place is the only one that can be had.
    content = os.pread(fd, len(part), part.start)
    punch_hole(fd, part.start, len(part))
    os.fsync(fd)
    fillers: dict[int, Path] = {}
    with suppress(OSError):
        while True:
            filler = place / f"filler-{len(fillers)}"
            with filler.open("wb", 0) as file:
                file.write(bytes(len(part)))
                os.fsync(file.fileno())
                fillers[_physical(file.fileno(), 0)] = filler
    fillers[max(fillers)].unlink()
    os.sync()
    os.pwrite(fd, content, part.start)
    os.fsync(fd)
    return _physical(fd, part.start)


def _physical(fd: int, offset: int) -> int:
    # The place of a file's byte on its disk, by the ioctl FS_IOC_FIEMAP; 0 for a hole.
    request = bytearray(struct.pack("=QQIIII", offset, 1, 1, 0, 1, 0) + bytes(56))
    fcntl.ioctl(fd, 0xC020660B, request)
    logical, physical, _length = struct.unpack_from("=QQQ", request, 32)
    return int(physical + offset - logical) if physical else 0


@contextmanager
def slow(
    image: Path, place: Path, rate: int, size: int = 256 << 20
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """
    Mount a disk with slow writes for one control group.

    :param image: the file behind the disk
    :param rate: bytes per second writable by the group
    :param size: of the disk
    :returns: the mount point, and the words to start a command in the group
    """
    throttle = _BLKIO / f"snapmig-test-{os.getpid()}"
    if not (_BLKIO / "blkio.throttle.write_bps_device").exists():
        lacks("the controller blkio of control groups, version 1")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    attach = ["losetup", "--find", "--show", image]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    throttle.mkdir()
    try:
        number = Path(f"/sys/block/{Path(device).name}/dev").read_text().strip()
        (throttle / "blkio.throttle.write_bps_device").write_text(f"{number} {rate}\n")
        place.mkdir()
        subprocess.run(["mount", device, place], check=True)
        try:
            script = 'echo $$ >"$0" && exec "$@"'
            yield place, ("sh", "-c", script, str(throttle / "cgroup.procs"))
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        throttle.rmdir()
        subprocess.run(["losetup", "--detach", device], check=True)
