"""Files as bytes at offsets: open nothing but regular files, read and write all of a range."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from snapmig.errors import DestinationExistsError, NoSpaceError, SnapmigError, UsageError
from snapmig.units import format_size

__all__ = (
    "Buffer",
    "NewFile",
    "check_destination",
    "descriptor_path",
    "free_bytes",
    "is_regular",
    "open_regular",
    "pread_all",
    "pwrite_all",
    "read_small",
    "sync_directory",
    "write_error",
)

Buffer = Any
"""Anything with the buffer protocol; :class:`collections.abc.Buffer` needs Python 3.12."""


def descriptor_path(fd: int) -> str:
    """
    Return a path by which this process and its children can reopen the same file.

    It names the file itself, whatever became of its directory entry. Opening it gives a separate
    file position; an inherited descriptor would share ours.
    """
    return f"/proc/{os.getpid()}/fd/{fd}"


_TYPES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


def open_regular(path: str | os.PathLike[str], flags: int = 0, *, follow: bool = True) -> int:
    """
    Open a regular file and nothing else: merely opening a device or a FIFO can have an effect.

    The file is first examined through an ``O_PATH`` descriptor and then opened through that.

    :param flags: ``os.O_RDONLY`` or ``os.O_RDWR``
    :param follow: follow a symbolic link; otherwise a link is refused
    :raises SnapmigError: not a regular file; the message leaves out the path
    :raises OSError: it can't be opened
    """
    links = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC | links)
    try:
        mode = stat.S_IFMT(os.fstat(handle).st_mode)
        if mode != stat.S_IFREG:
            raise SnapmigError(f"not a regular file but {_TYPES.get(mode, 'something else')}")
        return os.open(f"/proc/self/fd/{handle}", flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(handle)


def is_regular(path: Path) -> bool:
    """Return True if the path is a regular file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_small(path: str | os.PathLike[str], limit: int) -> bytes:
    """
    Return a small file's contents.

    :param limit: in bytes
    :raises SnapmigError: not a regular file, or larger than the limit; the message leaves out the
        path
    :raises OSError: it can't be read
    """
    fd = open_regular(path)
    try:
        data = pread_all(fd, limit + 1, 0)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise SnapmigError(f"larger than {format_size(limit)}")
    return data


def pread_all(fd: int, length: int, offset: int) -> bytes:
    """
    Return ``length`` bytes from ``offset``, fewer only at the end of the file.

    :raises OSError: they can't be read; with the file's name
    """
    try:
        data = os.pread(fd, length, offset)
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
    except OSError as error:
        with suppress(OSError):
            error.filename = os.readlink(f"/proc/self/fd/{fd}")
        raise
    return data


def pwrite_all(fd: int, data: Buffer, offset: int) -> None:
    """Write all of a buffer at an offset."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


def free_bytes(path: Path) -> int:
    """Return the bytes still available to this user on the filesystem of ``path``."""
    facts = os.statvfs(path)
    if facts.f_blocks == 0:  # ramfs, and hugetlbfs without a limit, report no sizes
        return 1 << 62
    blocks = facts.f_bfree if os.geteuid() == 0 else facts.f_bavail
    return blocks * facts.f_frsize


def write_error(error: OSError, shown: str, needed: int) -> Exception:
    """
    Return the error for a failed write, under the name given by the user.

    :param needed: size of the complete file in bytes, reported when its filesystem is full
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
        message = f"no space left on the filesystem, up to {format_size(needed)} must fit there"
        return NoSpaceError(message, path=shown)
    return OSError(error.errno, error.strerror, shown)


def check_destination(path: Path, *, force: bool) -> None:
    """
    Refuse a destination that can't become a new file.

    :raises DestinationExistsError: it exists and ``force`` is not set
    :raises SnapmigError: no such directory, or not a regular file
    """
    if not path.name:
        raise UsageError("expected the name of a file", path=str(path))
    if not path.parent.is_dir():
        raise SnapmigError(f"there is no directory {path.parent}", path=str(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            return
        mode = stat.S_IFREG  # a link to nowhere: the name is taken all the same
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise SnapmigError(f"the destination is {kind}", path=str(path))
    if not force:
        raise DestinationExistsError("exists already", path=str(path))


class NewFile:
    """
    A file being written.

    :param shown: display name
    :param needed: size of the complete file in bytes, reported when the filesystem is full
    """

    def __init__(self, fd: int, shown: str, needed: int) -> None:
        self.fd = fd
        self.shown = shown
        self.needed = needed

    def write(self, data: Buffer, offset: int) -> None:
        """Write at an offset; a full filesystem is a :class:`NoSpaceError` with the final name."""
        try:
            pwrite_all(self.fd, data, offset)
        except OSError as error:
            raise write_error(error, self.shown, self.needed) from error

    def resize(self, size: int) -> None:
        """Set the file's length; added bytes are a hole."""
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise write_error(error, self.shown, self.needed) from error

    def sync(self) -> None:
        """Wait until everything written so far is on stable storage."""
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise write_error(error, self.shown, self.needed) from error

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some network filesystems
            raise
    finally:
        os.close(fd)
