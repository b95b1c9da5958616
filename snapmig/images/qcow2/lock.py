"""
QEMU's locks on disk images: no image of a running guest is read, and nobody starts one meanwhile.

QEMU marks what it does with an image, and what it won't share, by read locks on single bytes far
apart: see the comments on permissions in its block/file-posix.c.
"""

from __future__ import annotations

import errno
import fcntl
import struct

from snapmig.errors import SnapmigError

__all__ = ("is_written", "lock_against_writers")

_READS = 100
_WRITES = 101
_SHARES_NO_READING = 200
_SHARES_NO_WRITING = 201
_FLOCK = "hhqqi4x"


def is_written(fd: int) -> bool:
    """Return True if a QEMU has an image open for writing, as a running guest has its disk."""
    return any(_is_locked(fd, at) for at in (_WRITES, _SHARES_NO_READING))


def lock_against_writers(fd: int, shown: str) -> None:
    """
    Keep QEMU from opening an image for writing, until the descriptor is closed.

    :raises SnapmigError: it is open for writing already
    """
    try:
        for at in (_READS, _SHARES_NO_WRITING):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _pack(fcntl.F_RDLCK, at))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise SnapmigError(f"image can't be locked: {error.strerror}", path=shown) from error
        return  # a filesystem without locks, on which QEMU goes without them, too
    if is_written(fd):
        message = "the image is in use by a QEMU that writes to it: end that guest first"
        raise SnapmigError(message, path=shown)


def _is_locked(fd: int, at: int) -> bool:
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _pack(fcntl.F_WRLCK, at))
    except OSError:  # a filesystem without locks
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _pack(kind: int, at: int) -> bytes:
    return struct.pack(_FLOCK, kind, 0, at, 1, 0)
