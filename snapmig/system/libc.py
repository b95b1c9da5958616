"""The few C library calls that the :mod:`os` module lacks."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

__all__ = (
    "die_with_parent",
    "huge_page_size",
    "punch_hole",
    "start_writeback",
    "wait_for_writeback",
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_PR_SET_PDEATHSIG = 1
_SYNC_FILE_RANGE_WAIT_BEFORE = 1
_SYNC_FILE_RANGE_WRITE = 2
_HUGETLBFS_MAGIC = 0x958458F6


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """
    Turn a range of a file into zeros that take no space; see fallocate(2).

    :returns: False where the filesystem can't do that (nothing was changed then)
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


def start_writeback(fd: int, offset: int, length: int) -> None:
    """
    Ask the kernel to begin writing a range to the disk, without waiting for it.

    Only a hint: where it is refused, the final fsync does the work and reports the errors.
    """
    _libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def wait_for_writeback(fd: int, offset: int, length: int) -> None:
    """Wait until what was being written of a range is on the disk; errors are fsync's to report."""
    _libc.sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WAIT_BEFORE)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send us a signal when the thread that started us ends; see prctl(2)."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def huge_page_size(path: str) -> int | None:
    """Return the page size of a file on hugetlbfs in bytes, None for any other file."""
    facts = (ctypes.c_long * 32)()  # struct statfs: type, then block size; 120 bytes on 64 bits
    if _libc.statfs(os.fsencode(path), facts) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(facts[1]) if facts[0] & 0xFFFFFFFF == _HUGETLBFS_MAGIC else None
