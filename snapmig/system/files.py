"""
Write files whole: a partial file beside the destination takes its name once complete.

The usual order for a file never to be seen half written: create under another name in the same
directory, write, sync, rename, sync the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any, Protocol, Self

from snapmig.errors import DestinationExistsError, NoSpaceError, SnapmigError, UsageError
from snapmig.units import format_size

__all__ = (
    "Buffer",
    "NamelessFile",
    "NewFile",
    "PartialDirectory",
    "PartialFile",
    "Pieces",
    "check_destination",
    "descriptor_path",
    "fill_file",
    "free_bytes",
    "is_regular",
    "open_regular",
    "partial_path",
    "pread_all",
    "pwrite_all",
    "read_small",
    "sync_directory",
    "write_error",
    "write_file",
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
    """Return ``length`` bytes from ``offset``, fewer only at the end of the file."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
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


class NamelessFile(NewFile):
    """
    An empty file without a name: nobody can plant it, and it ends with its descriptors.

    A killed process leaves nothing behind.

    :param folder: a directory of a filesystem with enough room
    :param needed: its size in bytes, reported when the filesystem is full
    """

    def __init__(self, folder: Path, needed: int = 0) -> None:
        super().__init__(_open_nameless(folder), f"temporary file in {folder}", needed)


class PartialFile(NewFile):
    """
    A file under a temporary name until :meth:`commit`.

    Leaving the ``with`` block without a commit removes it.

    :param path: the final name
    :param needed: size of the complete file in bytes, reported when the filesystem is full
    """

    def __init__(self, path: Path, needed: int) -> None:
        self.path = path
        self.partial_path = partial_path(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(self.partial_path, flags, 0o600)
        except OSError as error:
            raise write_error(error, str(path), needed) from error
        super().__init__(fd, str(path), needed)

    def __exit__(self, *_exc: object) -> None:
        if self.fd >= 0:
            self.close()
            with contextlib.suppress(FileNotFoundError):
                self.partial_path.unlink()

    def commit(self, *, force: bool) -> None:
        """
        Give the file its final name; it must be synced already.

        :raises DestinationExistsError: a file appeared there meanwhile, and ``force`` is not set
        """
        if force:
            self.partial_path.replace(self.path)
        else:
            try:
                os.link(self.partial_path, self.path)  # unlike a rename, refuses to overwrite
            except FileExistsError as error:
                message = "was created by someone else meanwhile"
                raise DestinationExistsError(message, path=str(self.path)) from error
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                    raise
                self.partial_path.rename(self.path)  # a filesystem without hard links
            else:
                self.partial_path.unlink()
        self.close()
        sync_directory(self.path.parent)


class PartialDirectory:
    """
    A directory under a temporary name until :meth:`commit`.

    Leaving the ``with`` block without a commit removes it with its contents.

    :param path: the final name
    :raises DestinationExistsError: the name is taken
    """

    def __init__(self, path: Path) -> None:
        if path.exists() or path.is_symlink():
            message = "exists already, expected the name of a new directory"
            raise DestinationExistsError(message, path=str(path))
        self.path = path
        self.partial_path = partial_path(path)
        self.partial_path.mkdir(mode=0o700)

    def __enter__(self) -> PartialDirectory:
        return self

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self.partial_path, ignore_errors=True)

    def commit(self) -> None:
        """
        Give the directory its final name; its files must be synced already.

        :raises DestinationExistsError: something appeared there meanwhile
        """
        sync_directory(self.partial_path)
        if self.path.exists():  # a rename would silently replace an empty directory
            message = "was created by someone else meanwhile"
            raise DestinationExistsError(message, path=str(self.path))
        self.partial_path.rename(self.path)
        sync_directory(self.path.parent)


class Pieces(Sized, Iterable[bytes], Protocol):
    """Contents in pieces, with a total length in bytes known beforehand."""


def fill_file(file: PartialFile, content: bytes | Pieces) -> None:
    """Write and sync the whole contents of a file."""
    at = 0
    for piece in [content] if isinstance(content, bytes) else content:
        file.write(piece, at)
        at += len(piece)
    file.sync()


def write_file(path: Path, content: bytes | Pieces, *, force: bool = False) -> None:
    """Write a file whole, synced, under its final name or not at all."""
    with PartialFile(path, len(content)) as file:
        fill_file(file, content)
        file.commit(force=force)


def _open_nameless(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise write_error(error, str(folder), 0) from error
    # Network filesystems lack this: there the file has a name for a moment.
    with PartialFile(folder / "snapmig", 0) as file:
        return os.dup(file.fd)


def partial_path(path: Path) -> Path:
    """Return an unused name beside a file: for its successor, or to set it aside."""
    # Names have at most 255 bytes; one cut inside a character is still a name.
    start = os.fsdecode(os.fsencode(path.name)[:200])
    return path.with_name(f".{start}.{os.urandom(6).hex()}.partial")


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
