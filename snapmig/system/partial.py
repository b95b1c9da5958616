"""
Write files whole: a partial file beside the destination takes its name once complete.

The usual order for a file never to be seen half written: create under another name in the same
directory, write, sync, rename, sync the directory. Partial files and directories are locked as long
as their processes live, workers included. What a killed run left has no lock, and the next run for
the same destination removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Protocol

from snapmig.errors import DestinationExistsError, SnapmigError
from snapmig.system.files import NewFile, sync_directory, write_error
from snapmig.system.libc import rename_new
from snapmig.system.signals import remark

__all__ = (
    "NamelessFile",
    "PartialDirectory",
    "PartialFile",
    "Pieces",
    "ResumableFile",
    "fill_file",
    "partial_path",
    "remove_leftovers",
    "write_file",
)

_LOCK_WAIT_S = 3.0
"""For the workers of a killed run to end: the kernel kills them with their parent."""


def _start(path: Path) -> str:
    # Names have at most 255 bytes; one cut inside a character is still a name.
    return os.fsdecode(os.fsencode(path.name)[:200])


def partial_path(path: Path, kind: str = "partial") -> Path:
    """Return an unused name beside a file: for its successor, or to set it aside."""
    return path.with_name(f".{_start(path)}.{os.urandom(6).hex()}.{kind}")


def remove_leftovers(path: Path, kind: str = "partial") -> bool:
    """
    Remove the files and directories that killed runs left beside a destination.

    Return whether there were any.
    """
    found = False
    name = re.compile(re.escape(f".{_start(path)}.") + rf"[0-9a-f]{{12}}\.{kind}")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and not entry.is_symlink():
                found = _remove_dead(Path(entry.path)) or found
    return found


def _remove_dead(path: Path) -> bool:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            if facts.st_uid != os.geteuid() or not _lock(fd):
                return False
            if stat.S_ISDIR(facts.st_mode):
                _remove_tree(path)
            elif stat.S_ISREG(facts.st_mode):
                path.unlink()
            return True
        finally:
            os.close(fd)
    return False


def _remove_tree(path: Path) -> None:
    import shutil  # noqa: PLC0415 - with bz2 and lzma, for which few commands have use

    shutil.rmtree(path, ignore_errors=True)


def _lock(fd: int) -> bool:
    # Not where the filesystem has no locks: there nothing can be taken for a killed run's.
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _try_lock(fd: int) -> bool:
    # For a file of our own: False only if another process has it.
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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
        remove_leftovers(path)
        try:
            self.partial_path, fd = self._open()
        except OSError as error:
            raise write_error(error, str(path), needed) from error
        super().__init__(fd, str(path), needed)

    def _open(self) -> tuple[Path, int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            name = partial_path(self.path)
            fd = os.open(name, flags, 0o600)
            # Another run may have taken it for a killed one's before it was locked.
            if _try_lock(fd) and os.fstat(fd).st_nlink:
                return name, fd
            os.close(fd)

    def __exit__(self, *exc: object) -> None:
        if self.fd >= 0:
            self.close()
            with contextlib.suppress(FileNotFoundError):
                self.partial_path.unlink()
            stays = f", {self.path.name} is as it was" if os.path.lexists(self.path) else ""
            remark(exc[1:2] and exc[1], f"the partial file of {self.path} was removed{stays}")

    def commit(self, *, force: bool) -> None:
        """
        Give the file its final name; it must be synced already.

        :raises DestinationExistsError: a file appeared there meanwhile, and ``force`` is not set
        """
        if force:
            self.partial_path.replace(self.path)
        else:
            try:
                rename_new(self.partial_path, self.path)
            except FileExistsError as error:
                message = "was created by someone else meanwhile"
                raise DestinationExistsError(message, path=str(self.path)) from error
        self.close()
        remove_leftovers(self.path, "resume")
        sync_directory(self.path.parent)


class ResumableFile(PartialFile):
    """
    A partial file that stays when its run ends early, under a name that the next run finds.

    :param key: of everything that the contents depend on, as 12 hexadecimal digits; files with
        another key are removed
    :ivar resumed: an earlier run has written to it
    :ivar dropped: there was a file with another key
    :raises SnapmigError: another run writes it, or it is not a file of this user's
    """

    def __init__(self, path: Path, needed: int, key: str) -> None:
        self._key = key
        super().__init__(path, needed)
        self.resumed = os.fstat(self.fd).st_size > 0
        self.dropped = remove_leftovers(path, "resume")

    def _open(self) -> tuple[Path, int]:
        name = self.path.with_name(f".{_start(self.path)}.{self._key}.resume")
        end = time.monotonic() + _LOCK_WAIT_S
        while True:
            fd = self._open_own(name)
            locked = _try_lock(fd)
            facts = os.fstat(fd)
            if locked and facts.st_nlink == 1:
                return name, fd
            os.close(fd)
            if locked and facts.st_nlink > 1:  # the other name is that of a complete file
                name.unlink(missing_ok=True)
            elif not locked and time.monotonic() > end:
                raise SnapmigError(f"another run is writing {name}", path=str(self.path))
            elif not locked:
                time.sleep(0.02)

    def _open_own(self, name: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        message = f"{name} is not a file of this user's, so nothing can be resumed from it"
        try:
            fd = os.open(name, flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise SnapmigError(message, path=str(self.path)) from error
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
            os.close(fd)
            raise SnapmigError(message, path=str(self.path))
        os.fchmod(fd, 0o600)
        return fd

    def __exit__(self, *exc: object) -> None:
        if self.fd >= 0 and not os.fstat(self.fd).st_size:
            super().__exit__(*exc)
        self.close()


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
        remove_leftovers(path)
        self.partial_path = partial_path(path)
        self.partial_path.mkdir(mode=0o700)
        self._fd = os.open(self.partial_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(self._fd)

    def __enter__(self) -> PartialDirectory:
        return self

    def __exit__(self, *exc: object) -> None:
        _remove_tree(self.partial_path)
        os.close(self._fd)
        remark(exc[1], f"the partial directory of {self.path} was removed")

    def commit(self) -> None:
        """
        Give the directory its final name; its files must be synced already.

        :raises DestinationExistsError: something appeared there meanwhile
        """
        sync_directory(self.partial_path)
        try:
            rename_new(self.partial_path, self.path)
        except FileExistsError as error:
            message = "was created by someone else meanwhile"
            raise DestinationExistsError(message, path=str(self.path)) from error
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
