"""A few C library calls missing from the :mod:`os` module."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from pathlib import Path

__all__ = (
    "CAP_DAC_READ_SEARCH",
    "IO_CLASSES",
    "die_with_parent",
    "force_unmount",
    "hide_memory",
    "huge_page_size",
    "is_in_memory",
    "keep_capabilities",
    "keep_freed_memory",
    "punch_hole",
    "rename_new",
    "set_io_priority",
    "start_writeback",
    "wait_for_writeback",
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_SYNC_FILE_RANGE_WAIT_BEFORE = 1
_SYNC_FILE_RANGE_WRITE = 2
_MNT_FORCE, _MNT_DETACH = 1, 2
CAP_DAC_READ_SEARCH = 2
"""The right to read any file, of capabilities(7)."""
_CAPABILITY_VERSION = 0x20080522
_TMPFS_MAGIC = 0x01021994
_RAMFS_MAGIC = 0x858458F6
_HUGETLBFS_MAGIC = 0x958458F6
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

IO_CLASSES = {"realtime": 1, "best-effort": 2, "idle": 3}
"""The scheduling classes of ioprio_set(2), under their names in ionice(1)."""
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13
# The C library has no function for it, and its number differs between architectures.
_IOPRIO_SET = {
    "x86_64": 251, "aarch64": 30, "riscv64": 30, "loongarch64": 30, "ppc64le": 273, "s390x": 282,
}  # fmt: skip


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """
    Turn a range of a file into zeros that take no space; see fallocate(2).

    :returns: False if the filesystem lacks this; nothing was changed then
    :raises OSError: any other failure
    """
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    while _libc.fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(number, os.strerror(number))
    return True


def rename_new(old: Path, new: Path) -> None:
    """
    Rename a file or a directory in one step, unless the new name is taken.

    :raises FileExistsError: it is taken
    """
    if hasattr(_libc, "renameat2"):
        names = os.fsencode(old), os.fsencode(new)
        if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(new))
    _link_and_unlink(old, new)  # a network filesystem, or an old C library


def _link_and_unlink(old: Path, new: Path) -> None:
    try:
        if old.is_dir():
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        os.link(old, new)  # unlike a rename, refuses to overwrite
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        if new.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
        old.rename(new)  # a filesystem without hard links
    else:
        old.unlink()


def start_writeback(fd: int, offset: int, length: int) -> None:
    """
    Ask the kernel to begin writing a range to the disk, without waiting for it.

    Only a hint: if it is refused, the final fsync does the work and reports the errors.
    """
    _libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def wait_for_writeback(fd: int, offset: int, length: int) -> None:
    """Wait until the writeback of a range is done; reporting errors is left to fsync."""
    _libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WAIT_BEFORE)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send us a signal when the thread that started us ends; see prctl(2)."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def hide_memory() -> None:
    """Keep this process's memory from debuggers and core dumps; see PR_SET_DUMPABLE in prctl(2)."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def keep_freed_memory(largest: int, most: int) -> None:
    """
    Have the C library reuse freed memory instead of returning it at once; see mallopt(3).

    By default glibc returns free memory at the end of the heap once it is twice the largest block
    ever freed. Workers with several buffers of a packet returned and faulted in the same pages for
    each of them. C libraries without this setting ignore the call.

    :param largest: bytes of the largest block to take from the heap, up to 32 MiB
    :param most: bytes to keep free at its end
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, largest)
        _libc.mallopt(_M_TRIM_THRESHOLD, most)


def huge_page_size(path: str) -> int | None:
    """Return the page size in bytes of a file on hugetlbfs, None for any other file."""
    kind, block_size = _filesystem(path)
    return block_size if kind == _HUGETLBFS_MAGIC else None


def is_in_memory(path: str) -> bool:
    """Return True for files whose pages are their only place: on tmpfs or ramfs."""
    return _filesystem(path)[0] in (_TMPFS_MAGIC, _RAMFS_MAGIC)


def _filesystem(path: str) -> tuple[int, int]:
    facts = (ctypes.c_long * 32)()  # struct statfs: type, then block size; 120 bytes on 64 bits
    if _libc.statfs(os.fsencode(path), facts) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return facts[0] & 0xFFFFFFFF, int(facts[1])


def set_io_priority(name: str, level: int) -> None:
    """
    Set the disk priority of this process and of the workers it starts; see ioprio_set(2).

    :param name: a class of :data:`IO_CLASSES`
    :param level: 0, the highest, to 7; ignored for ``idle``
    :raises OSError: not permitted, or the call's number is unknown on this architecture
    """
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None or ctypes.sizeof(ctypes.c_long) != 8:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    value = IO_CLASSES[name] << _IOPRIO_CLASS_SHIFT | (0 if name == "idle" else level)
    arguments = map(ctypes.c_long, (number, _IOPRIO_WHO_PROCESS, 0, value))
    if _libc.syscall(*arguments) != 0:
        failure = ctypes.get_errno()
        raise OSError(failure, os.strerror(failure))


def force_unmount(directory: Path) -> None:
    """
    Unmount at once, with errors for those who use the mount; see umount2(2).

    :raises OSError: not permitted, or not a mount
    """
    if _libc.umount2(os.fsencode(directory), _MNT_FORCE | _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))


def keep_capabilities(numbers: set[int]) -> None:
    """
    Give up all other capabilities(7) of this thread, and of the threads it starts from now on.

    Only a precaution: a failure is ignored, and so is a thread that has none.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    words = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, low words first
    if _libc.capget(header, words) != 0:
        return
    for number in range(64):
        if number not in numbers:
            for kind in range(3):
                words[3 * (number // 32) + kind] &= ~(1 << number % 32)
    _libc.capset(header, words)
