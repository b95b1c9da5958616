"""
The files behind a guest's memory, opened only if they really are QEMU's.

The monitor's word is not enough: a process that holds its socket could name somebody else's file,
and a snapmig with more rights would read it into a snapshot, or overwrite it on a restore.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import SnapmigError
from snapmig.guests.memory import MEMFD, GuestMemory
from snapmig.guests.monitor import Peer
from snapmig.system.files import descriptor_path

__all__ = ("open_backings",)

_DELETED = " (deleted)"


@contextmanager
def open_backings(
    memories: Sequence[GuestMemory], peer: Peer, access: int
) -> Iterator[tuple[int, ...]]:
    """
    Open the files behind memory backends, and yield their descriptors.

    If /proc of QEMU's process can be read, each must be a file open for reading and writing in that
    process, and mapped just there: shared and writable. Otherwise it must be owned by the process's
    user, with no symbolic link on its path.

    :param peer: the process that listens at the monitor's socket
    :param access: ``os.O_RDONLY`` or ``os.O_RDWR``
    :raises SnapmigError: there is no such file, it is too short, or two backends overlap
    """
    with ExitStack() as stack:
        opened = []
        for memory in memories:
            with _pinned(memory, peer) as pin:
                fd = os.open(descriptor_path(pin), access | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            _check_size(memory, fd)
            opened.append(fd)
        _check_apart(memories, opened)
        yield tuple(opened)


class _Process(NamedTuple):
    # A process as seen in /proc.
    links: list[Path]
    maps: list[str]
    folder: str
    user: int


class _OpenFile(NamedTuple):
    # A descriptor's fdinfo, all read at the same moment.
    flags: int
    mount: str
    inode: str  # empty before Linux 5.14


@contextmanager
def _pinned(memory: GuestMemory, peer: Peer) -> Iterator[int]:
    # An O_PATH descriptor, so that the file checked is the file opened.
    process = _look(peer)
    if process is None:
        pin = _pin_of_user(memory, peer)
    elif peer.uid in (0, process.user):  # a QEMU that drops root's rights began to listen before
        pin = _pin_of_process(memory, peer, process)
    else:
        message = f"process {peer.pid} is of user {process.user}, its monitor of user {peer.uid}"
        raise SnapmigError(message)
    try:
        yield pin
    finally:
        os.close(pin)


def _look(peer: Peer) -> _Process | None:
    # None where the process is hidden from here.
    folder = Path(f"/proc/{peer.pid}")
    try:
        status = (folder / "status").read_text("utf-8", "replace")
        return _Process(
            links=sorted((folder / "fd").iterdir(), key=lambda link: int(link.name)),
            maps=(folder / "maps").read_text("utf-8", "surrogateescape").splitlines(),
            folder=os.readlink(folder / "cwd"),
            user=int(status.partition("\nUid:")[2].split(maxsplit=1)[0]),
        )
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return None


def _pin_of_process(memory: GuestMemory, peer: Peer, process: _Process) -> int:
    found: dict[tuple[int, int], int] = {}
    with ExitStack() as stack:
        for link in process.links:
            pin = _pin_link(link, memory, process)
            if pin is not None:
                stack.callback(os.close, pin)
                facts = os.fstat(pin)
                found[facts.st_dev, facts.st_ino] = pin
        if len(found) == 1:
            return os.dup(found.popitem()[1])
    message = (
        f"RAM block {memory.name!r}: process {peer.pid} has {len(found)} files of this name open "
        f"and mapped as {memory.size} bytes of shared memory, expected 1"
    )
    raise SnapmigError(message, path=memory.path or memory.kind)


def _pin_link(link: Path, memory: GuestMemory, process: _Process) -> int | None:
    with suppress(OSError):  # closed meanwhile
        target = os.readlink(link)
        if not _is_named(target.removesuffix(_DELETED), memory, process.folder):
            return None
        pin = os.open(link, os.O_PATH | os.O_CLOEXEC)
        if _is_open_for_writing(link, pin) and _is_mapped(memory, pin, target, process.maps):
            return pin
        os.close(pin)
    return None


def _is_named(target: str, memory: GuestMemory, folder: str) -> bool:
    if memory.path is None:
        return memory.kind == MEMFD and target == f"/memfd:{MEMFD}"
    for path in (memory.path, os.path.realpath(Path(folder, memory.path))):
        # A directory as path: QEMU made a file of its own in it, and unlinked it.
        made = f"{path.rstrip('/')}/qemu_back_mem."
        if target == path or target.startswith(
            (f"{made}{memory.name}.", f"{made}_objects_{memory.name}.")
        ):
            return True
    return False


def _is_open_for_writing(link: Path, pin: int) -> bool:
    # The link may lead elsewhere by now, so one read must answer for it.
    theirs = _open_file(link.parent.parent / "fdinfo" / link.name)
    own = _open_file(Path(f"/proc/self/fdinfo/{pin}"))
    same = (theirs.mount, theirs.inode) == (own.mount, own.inode)
    regular = stat.S_ISREG(os.fstat(pin).st_mode)
    return regular and same and theirs.flags & (os.O_ACCMODE | os.O_PATH) == os.O_RDWR


def _open_file(info: Path) -> _OpenFile:
    lines = (line.partition(":") for line in info.read_text().splitlines())
    facts = {name: value.strip() for name, _, value in lines}
    return _OpenFile(int(facts["flags"], 8), facts["mnt_id"], facts.get("ino", ""))


def _is_mapped(memory: GuestMemory, pin: int, target: str, maps: Sequence[str]) -> bool:
    # True if shared writable mappings cover the RAM without a gap.
    inode = str(os.fstat(pin).st_ino)
    ranges = []
    for line in maps:
        place, rights, offset, _device, number, *name = line.split(maxsplit=5)
        # Layered filesystems may report another inode here than stat does.
        if rights[1:2] == "w" and rights[3:4] == "s" and (number == inode or name == [target]):
            first, _, last = place.partition("-")
            ranges.append((int(offset, 16), int(offset, 16) + int(last, 16) - int(first, 16)))
    reached = memory.file_offset
    for start, end in sorted(ranges):
        if start <= reached:
            reached = max(reached, end)
    return reached >= memory.file_offset + memory.size


def _pin_of_user(memory: GuestMemory, peer: Peer) -> int:
    path = memory.path
    if path is None or not path.startswith("/"):
        message = (
            f"RAM block {memory.name!r} is a file without a path from the root, and this user may "
            f"not look into process {peer.pid}"
        )
        raise SnapmigError(message, path=path or memory.kind)
    pin = _walk(path)
    facts = os.fstat(pin)
    if stat.S_ISREG(facts.st_mode) and facts.st_uid == peer.uid:
        return pin
    os.close(pin)
    message = (
        f"expected a regular file of user {peer.uid}, who runs the monitor, since this user may "
        f"not look into process {peer.pid}"
    )
    raise SnapmigError(message, path=path)


def _walk(path: str) -> int:
    # A link among the folders is refused as "not a directory", one at the end as no regular file.
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    *folders, name = (part for part in path.split("/") if part)
    fd = os.open("/", flags)
    for part, more in [*((folder, os.O_DIRECTORY) for folder in folders), (name, 0)]:
        above = fd
        try:
            fd = os.open(part, flags | more, dir_fd=above)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(above)
    return fd


def _check_size(memory: GuestMemory, fd: int) -> None:
    size, end = os.fstat(fd).st_size, memory.file_offset + memory.size
    if size < end:
        message = f"RAM block {memory.name!r} ends at {end} bytes of its file, which has {size}"
        raise SnapmigError(message, path=memory.path or memory.kind)


def _check_apart(memories: Sequence[GuestMemory], opened: Sequence[int]) -> None:
    for (one, fd), (other, second) in combinations(zip(memories, opened, strict=True), 2):
        apart = (
            one.file_offset + one.size <= other.file_offset
            or other.file_offset + other.size <= one.file_offset
        )
        if not apart and os.path.sameopenfile(fd, second):
            message = f"RAM blocks {one.name!r} and {other.name!r} overlap in their file"
            raise SnapmigError(message, path=one.path or one.kind)
