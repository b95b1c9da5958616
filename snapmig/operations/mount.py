"""``mount`` and ``umount``: a snapshot as a folder of files, decoded as they are read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError, UsageError
from snapmig.mounts.mountpoint import Mounted, find_mount, unmount, wait_for_end
from snapmig.mounts.session import MountOptions, check_mount
from snapmig.mounts.tree import Folder
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.parse import parse_jobs
from snapmig.operations.runs.mounted_files import FACTS, SnapshotFolder
from snapmig.operations.runs.mounted_tree import DirectoryFolder, PrefixFolder
from snapmig.operations.runs.mounting import Report, Serving, run_mount
from snapmig.operations.runs.open_snapshots import MOST_IDLE, OpenSnapshots
from snapmig.operations.runs.overlay import OverlayMemory
from snapmig.operations.runs.random_access import CACHE, RandomAccess
from snapmig.operations.runs.working_set import load_working_set, write_working_set
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import is_url, parse_folder
from snapmig.units import parse_size

__all__ = ("MountResult", "mount", "mounted_snapshot", "umount")


@dataclass(frozen=True, slots=True)
class MountResult:
    """
    A mount.

    :param pid: the server's; it ends when the directory is unmounted
    """

    snapshot: str
    directory: str
    pid: int


@checks_arguments
def mount(
    snapshot: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    cache: int | str = CACHE,
    foreground: bool = False,
    allow_other: bool = False,
    log: str | os.PathLike[str] | None = None,
    working_set: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    notice: Callable[[str], None] | None = None,
) -> MountResult:
    """
    Mount a snapshot at a directory, read-only: its RAM as files in several forms.

    A directory, or a prefix in object storage, becomes a tree of its snapshots, such as the guests
    and times of a repository of backups; each is opened when somebody looks into it.

    The server is a process of its own, which goes on after this one, with the files that are open
    here. A packet is decoded when it is read for the first time, and checked as in a restore: a
    damaged one is EIO for those who read it, and a line in the log.

    :param snapshot: a path, or ``s3://BUCKET/KEY``; a directory, or ``s3://BUCKET/PREFIX/``
    :param jobs: most packets decoded side by side; default: as many as processors
    :param cache: decoded packets to keep, such as ``"256M"``, besides the kernel's page cache
    :param foreground: serve in this process, until the directory is unmounted
    :param allow_other: let other users read, too
    :param log: file for messages of the server; default: syslog, in the foreground ``notice``
    :param working_set: a file with the packets asked for in an earlier mount: they are decoded
        ahead; if there is no such file, it is made in the end
    :param overlay: a sparse file, made if there is none, that takes writes to ``guest.ram`` and to
        the files of RAM blocks; the snapshot stays as it is. ``save`` with the snapshot as parent
        makes an incremental one of ``guest.ram``
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots
    :param notice: called with messages while it is served in the foreground
    :raises CorruptSnapshotError: not a snapshot, or damaged in its tables or its index
    :raises UnsupportedError: needs a feature unknown to this version
    :raises StoreError: object storage can't be reached, or refused a request
    :raises SnapmigError: it can't be mounted, or FUSE is missing
    :raises OSError: a system call failed; with the path
    """
    threads, kept = parse_jobs(jobs), parse_size(cache)
    place = _absolute(directory)
    path = _stays(os.fspath(snapshot))
    check_mount(place)
    file = None if working_set is None else _absolute(working_set)
    over = None if overlay is None else _absolute(overlay)
    wanted = _Wanted(path, threads, kept, file, over, follow_remote_parents, keys)
    many = wanted.is_folder
    if many and (file, over) != (None, None):
        message = "a working set and an overlay are of one snapshot, and this is a folder"
        raise UsageError(message, path=path)
    if many and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(path)):
        message = "is inside the folder that it would show, expected a place elsewhere"
        raise UsageError(message, path=str(place))
    opened = partial(_opened_folder if many else _opened, wanted)
    options = MountOptions(
        path, everybody=allow_other, fixed=not many and over is None, writable=over is not None
    )
    serving = Serving(opened, place, options, None if log is None else _absolute(log))
    pid = run_mount(serving, foreground=foreground, notice=notice or (lambda _: None))
    return MountResult(path, str(place), pid)


class _Wanted(NamedTuple):
    # Snapshots to be opened by the server.
    path: str
    jobs: int
    cache: int
    working_set: Path | None
    overlay: Path | None
    follow_remote_parents: bool
    keys: Keys | None

    @property
    def is_folder(self) -> bool:
        if is_url(self.path):
            return self.path.endswith("/") or self.path.count("/") == 2
        return Path(self.path).is_dir()

    def open(self, path: str) -> RandomAccess:
        memory = RandomAccess(
            path,
            jobs=self.jobs,
            cache=self.cache,
            ahead=True,
            follow_remote_parents=self.follow_remote_parents,
            keys=self.keys,
        )
        try:
            memory.file.index.check_digest()
        except BaseException:
            memory.close()
            raise
        return memory


@contextmanager
def _opened(wanted: _Wanted, report: Report) -> Iterator[Folder]:
    memory = wanted.open(wanted.path)
    with closing(memory), _remembered(memory, wanted.working_set, report):
        if wanted.overlay is None:
            yield SnapshotFolder(memory, report)
            return
        with closing(OverlayMemory(memory, wanted.overlay)) as written:
            yield SnapshotFolder(written, report)


@contextmanager
def _opened_folder(wanted: _Wanted, report: Report) -> Iterator[Folder]:
    one = wanted._replace(cache=wanted.cache // MOST_IDLE)
    with closing(OpenSnapshots(one.open, report)) as snapshots:
        place = parse_folder(wanted.path)
        root: Folder
        if isinstance(place, Path):
            root = DirectoryFolder(place, snapshots)
        else:
            root = PrefixFolder(place, snapshots)
        list(root.names())  # it is there, and may be read
        yield root


@contextmanager
def _remembered(memory: RandomAccess, file: Path | None, report: Report) -> Iterator[None]:
    # The packets asked for, decoded ahead if known, else kept for the next time.
    known = None if file is None else load_working_set(file, memory.geometry)
    order = known or changed_last(memory.file)
    if order and memory.ahead:
        memory.ahead.start(order)
    yield
    asked = memory.packets.touched
    report(
        f"{memory.file.shown} is unmounted: {memory.packets.decoded} of "
        f"{memory.geometry.packet_count} packets were decoded, {len(asked)} asked for"
    )
    if file is not None and known is None:
        try:
            write_working_set(file, memory.geometry, asked)
        except (SnapmigError, OSError) as error:
            report(f"the working set is lost: {error}")


def changed_last(snapshot: SnapshotFile) -> list[int]:
    """
    Return the packets that a snapshot with a parent has itself, else none.

    What a guest wrote between two snapshots it is likely to use next.
    """
    if not snapshot.has_parent:
        return []
    steps = snapshot.index.steps()
    own = (first + np.flatnonzero(records["stored_size"]) for first, records in steps)
    return [int(number) for numbers in own for number in numbers]


@checks_arguments
def umount(
    directory: str | os.PathLike[str], *, lazy: bool = False, force: bool = False
) -> MountResult:
    """
    Unmount a directory, and wait until its server has ended.

    :param lazy: take it out of the tree now, and let those who use it go on
    :param force: end it now, with errors for those who use it; a guest that maps it is killed
    :raises UsageError: no snapshot is mounted there
    :raises SnapmigError: it is in use; the message has the processes
    """
    if lazy and force:
        raise UsageError("lazy and force exclude each other")
    place = _absolute(directory)
    found = find_mount(place)
    if found is None:
        raise UsageError("is not a mount of snapmig", path=str(place))
    unmount(found, lazy=lazy, force=force)
    if not lazy:
        _wait(found)
    return MountResult(found.shown, str(place), found.pid)


def mounted_snapshot(directory: str | os.PathLike[str]) -> str | None:
    """Return the id of the snapshot mounted at a directory, None if there is none."""
    place = _absolute(directory)
    if find_mount(place) is None:
        return None
    try:
        facts = json.loads((place / FACTS).read_bytes())
    except OSError as error:
        if error.errno == errno.ENOTCONN:  # its server was killed
            return None
        raise
    return str(facts["snapshot_id"])


def _wait(mounted: Mounted) -> None:
    if not wait_for_end(mounted):
        raise SnapmigError(f"is unmounted, but its server {mounted.pid} has not ended yet")


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))  # the server leaves our folder


def _stays(snapshot: str) -> str:
    return snapshot if is_url(snapshot) else str(_absolute(snapshot))
