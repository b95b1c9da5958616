"""The file system's operations, called by libfuse in threads of its own."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import mfusepy

from snapmig.errors import SnapmigError
from snapmig.mounts.tree import File, Folder, Node, WritableFile
from snapmig.system.libc import CAP_DAC_READ_SEARCH, keep_capabilities

__all__ = ("Session", "TreeServer")

_MOST_REPORTED = 10_000
"""Different errors reported; a damaged packet is asked for again and again."""
_PASSED_ON = (errno.ENOSPC, errno.EDQUOT)
"""Errors of an overlay that its writer can do something about."""


class Session(mfusepy.FUSE):  # type: ignore[misc]
    """mfusepy's loop with ``lseek``, which it lacks: it is how programs ask for holes."""

    def lseek(self, path: bytes, offset: int, whence: int, info: Any) -> int:
        """Call the operation with the handle of the open file."""
        return int(self.operations.lseek(os.fsdecode(path), offset, whence, info.contents.fh))


class TreeServer(mfusepy.Operations):  # type: ignore[misc]
    """
    Serves a tree. Of its files only those that take writes change, and nothing comes or goes.

    mfusepy takes any attribute named like an operation for it, so others begin with an underscore.

    :param started: called by the first thread once the kernel talks to us
    :param report: takes a sentence about each error of a reader
    :param everybody: other users may read, too
    """

    use_ns = True

    def __init__(
        self,
        root: Folder,
        started: Callable[[], None],
        report: Callable[[str], None],
        *,
        everybody: bool = False,
    ) -> None:
        self._root = root
        self._started = started
        self._report = report
        self._mask = 0o555 if everybody else 0o500
        self._owner = {"st_uid": os.geteuid(), "st_gid": os.getegid()}
        self._handles: dict[int, File] = {}
        self._numbers = count(1)
        self._reported: set[str] = set()
        self._guard = threading.Lock()
        self._humble: set[int] = set()

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        """Note that the kernel talks to us."""
        del conn_info, config_3
        self._started()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return what stat(2) shows."""
        node: Node = self._handles[fh] if fh in self._handles else self._find(path)
        times = dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), node.modified_ns)
        if isinstance(node, Folder):
            return {"st_mode": stat.S_IFDIR | self._mask, "st_nlink": 2, **times, **self._owner}
        with self._errors(path):
            sizes = {"st_size": node.size, "st_blocks": -(-node.used // 512)}
        mode = stat.S_IFREG | self._mask & 0o444
        if isinstance(node, WritableFile):
            mode |= stat.S_IWUSR
        return {"st_mode": mode, "st_nlink": 1, **sizes, **times, **self._owner}

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        """Yield the names in a folder."""
        del fh
        node = self._find(path)
        if not isinstance(node, Folder):
            raise mfusepy.FuseOSError(errno.ENOTDIR)
        with self._errors(path):
            names = list(node.names())
        yield from (".", "..", *names)

    def open(self, path: str, flags: int) -> int:
        """Open a file for reading."""
        node = self._find(path)
        if flags & os.O_ACCMODE != os.O_RDONLY and not isinstance(node, WritableFile):
            raise mfusepy.FuseOSError(errno.EROFS)
        if isinstance(node, Folder):
            raise mfusepy.FuseOSError(errno.EISDIR)
        with self._errors(path):
            node.open()
        number = next(self._numbers)
        self._handles[number] = node
        return number

    def release(self, path: str, fh: int) -> int:
        """Close a file."""
        del path
        self._handles.pop(fh).close()
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return bytes; EIO where they are damaged or can't be had."""
        with self._errors(path):
            return self._handles[fh].read(offset, size)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write bytes within the size of a file."""
        node = self._handles[fh]
        if not isinstance(node, WritableFile):
            raise mfusepy.FuseOSError(errno.EROFS)
        if offset + len(data) > node.size:
            raise mfusepy.FuseOSError(errno.EFBIG)
        with self._errors(path):
            node.write(offset, data)
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        """Wait until a file's writes are on stable storage."""
        del datasync
        node = self._handles[fh]
        if isinstance(node, WritableFile):
            with self._errors(path):
                node.sync()
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Refuse another size."""
        node = self._handles[fh] if fh in self._handles else self._find(path)
        if isinstance(node, Folder) or node.size != length:
            raise mfusepy.FuseOSError(errno.EPERM)
        return 0

    def _refused(self, *_names: Any) -> int:
        raise mfusepy.FuseOSError(errno.EROFS)

    create = mkdir = mknod = symlink = link = unlink = rmdir = rename = _refused

    def lseek(self, path: str, offset: int, whence: int, fh: int) -> int:
        """Find data or a hole."""
        node = self._handles[fh]
        with self._errors(path):
            if not 0 <= offset < node.size:
                raise mfusepy.FuseOSError(errno.ENXIO)
            if whence == os.SEEK_HOLE:
                return node.next_hole(offset)
            found = node.next_data(offset)
            if found == node.size:
                raise mfusepy.FuseOSError(errno.ENXIO)
            return found

    def statfs(self, path: str) -> dict[str, int]:
        """Return the facts of a full file system."""
        del path
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}

    def _find(self, path: str) -> Node:
        node: Node = self._root
        for name in filter(None, path.split("/")):
            with self._errors(path):
                try:
                    if not isinstance(node, Folder):
                        raise mfusepy.FuseOSError(errno.ENOTDIR)
                    node = node.child(name)
                except KeyError:
                    raise mfusepy.FuseOSError(errno.ENOENT) from None
        return node

    def _errors(self, path: str) -> _Errors:
        # libfuse starts its threads when it likes, the second one before any call of ours.
        thread = threading.get_native_id()
        if thread not in self._humble:
            self._humble.add(thread)
            keep_capabilities({CAP_DAC_READ_SEARCH})
        return _Errors(self._say_once, path)

    def _say_once(self, path: str, sentence: str) -> None:
        with self._guard:
            if sentence in self._reported or len(self._reported) >= _MOST_REPORTED:
                return
            self._reported.add(sentence)
        self._report(f"{path}: {sentence}")


class _Errors:
    # Errors of a reader or writer become EIO, unless passed on, and a sentence in the log.
    def __init__(self, say: Callable[[str, str], None], path: str) -> None:
        self._say = say
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, mfusepy.FuseOSError):
            return
        if isinstance(error, (SnapmigError, OSError, MemoryError)):
            self._say(self._path, str(error) or type(error).__name__)
            found = error.errno if isinstance(error, OSError) else None
            raise mfusepy.FuseOSError(found if found in _PASSED_ON else errno.EIO) from error
