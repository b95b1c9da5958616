"""Mounts of this host: found, left, and the processes that use them; none of it asks a server."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import SnapmigError, UsageError
from snapmig.mounts.library import HELPER
from snapmig.system.children import run_child
from snapmig.system.libc import force_unmount

__all__ = (
    "Mounted",
    "check_directory",
    "find_mount",
    "source_name",
    "unmount",
    "users_of",
    "wait_for_end",
)

_LONGEST_END_S = 60.0
_KIND = "fuse.snapmig"
_ESCAPE = re.compile(r"\\([0-7]{3})")
_SOURCE = re.compile(r"snapmig\[(\d{1,9})\]:(.*)", re.DOTALL)


class Mounted(NamedTuple):
    """
    A mount of ours.

    :param number: the kernel's number of the mount
    :param device: major and minor number of its files, such as ``0:52``
    :param pid: of its server, as it said itself
    :param owner: the user who mounted it, as the kernel knows
    :param shown: the name of what is mounted
    """

    number: int
    device: str
    directory: Path
    pid: int
    owner: int
    shown: str


def source_name(snapshot: str) -> str:
    """Return the name of a mount's source: with the server's pid, for who unmounts it."""
    return f"snapmig[{os.getpid()}]:{snapshot}"


def find_mount(directory: Path) -> Mounted | None:
    """Return our mount at a directory, the one on top, or None."""
    wanted = str(_resolved(directory))
    if directory.is_symlink():
        wanted = os.path.realpath(directory)
    found = None
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        number, _, device, _, path, *_ = before.split(" ")
        kind, source, options = after.split(" ", 2)
        if _plain(path) == wanted:
            found = None
            match = _SOURCE.fullmatch(_plain(source))
            if kind == _KIND and match is not None:
                owner = re.search(r"(?:^|,)user_id=(\d+)", options)
                user = int(owner[1]) if owner else -1
                place = Path(wanted)
                found = Mounted(int(number), device, place, int(match[1]), user, match[2])
    return found


def users_of(mounted: Mounted) -> list[int]:
    """Return the processes that map or open its files, or work in it, as far as we may know."""
    return [pid for pid in _processes() if pid != mounted.pid and _uses(pid, mounted)]


def unmount(mounted: Mounted, *, lazy: bool = False, force: bool = False) -> None:
    """
    Unmount.

    :param lazy: take it out of the tree now; its users go on
    :param force: end it; its users get errors
    :raises SnapmigError: it is in use, or not ours
    """
    if force:
        _end(mounted)
        return
    options = ["-u", "-z"] if lazy else ["-u"]
    arguments = [HELPER, *options, "--", str(mounted.directory)]
    try:
        ended = run_child(arguments, lambda _: False, lambda: True, grace_s=1)
    except FileNotFoundError as error:
        message = f"mounts need {HELPER}, which is not installed: apt install fuse3"
        raise SnapmigError(message) from error
    if ended.code:
        raise SnapmigError(_refusal(mounted, ended.errors), path=str(mounted.directory))


def _end(mounted: Mounted) -> None:
    try:
        force_unmount(mounted.directory)
    except PermissionError:
        # A server unmounts at a signal. Its pid is the word of the user who mounted it.
        if mounted.owner != os.geteuid():
            raise
        with suppress(ProcessLookupError):
            os.kill(mounted.pid, signal.SIGTERM)


def wait_for_end(mounted: Mounted) -> bool:
    """Wait for the end of a mount's server; return False if it takes too long."""
    try:
        fd = os.pidfd_open(mounted.pid)
    except OSError:  # it has ended
        return True
    try:
        return bool(select.select([fd], [], [], _LONGEST_END_S)[0])
    finally:
        os.close(fd)


def _refusal(mounted: Mounted, said: object) -> str:
    users = users_of(mounted)
    if users:
        many = f"process{'es' if len(users) > 1 else ''} {', '.join(map(str, users[:20]))}"
        more = f" and {len(users) - 20} more" if len(users) > 20 else ""
        return f"is used by {many}{more}; lazy lets them go on, force ends them"
    lines = list(said) if isinstance(said, (list, tuple)) else []
    return f"can't be unmounted: {lines[-1] if lines else f'{HELPER} failed'}"


def _resolved(directory: Path) -> Path:
    # Without a look at the directory itself: its server may be dead, or slow.
    place = Path(os.path.abspath(directory))
    return place.parent.resolve() / place.name


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _uses(pid: int, mounted: Mounted) -> bool:
    folder = Path(f"/proc/{pid}")
    with suppress(OSError):  # it ended, or belongs to somebody else
        inside = f"{mounted.directory}/"
        places = [os.readlink(folder / name) for name in ("cwd", "root")]
        if any(f"{place}/".startswith(inside) for place in places):
            return True
        return _maps(folder, mounted.device) or _opens(folder, mounted.number)
    return False


def _maps(folder: Path, device: str) -> bool:
    major, minor = map(int, device.split(":"))
    name = f"{major:02x}:{minor:02x}"
    with (folder / "maps").open(errors="replace") as lines:
        return any(line.split(maxsplit=4)[3] == name for line in lines)


def _opens(folder: Path, number: int) -> bool:
    for file in (folder / "fdinfo").iterdir():
        with suppress(OSError):  # closed meanwhile
            if f"mnt_id:\t{number}\n" in file.read_text(errors="replace"):
                return True
    return False


def check_directory(directory: Path) -> None:
    """
    Check that something can be mounted at a directory, and take away a mount without a server.

    :raises UsageError: there is a mount of ours already, or it is not empty
    :raises SnapmigError: it is no directory
    """
    found = find_mount(directory)
    if found is not None:
        if not _is_dead(directory):
            raise UsageError("has a mount already", path=str(directory))
        # The helper has most likely seen its end before us, and unmounts it, too.
        try:
            unmount(found, lazy=True)
        except SnapmigError:
            if find_mount(directory) is not None:
                raise
    if not directory.is_dir():
        raise SnapmigError("is not a directory, expected one to mount at", path=str(directory))
    if any(directory.iterdir()):
        message = "has files, which a mount would hide: expected an empty directory"
        raise UsageError(message, path=str(directory))


def _is_dead(directory: Path) -> bool:
    try:
        os.statvfs(directory)  # which the kernel never answers from its caches
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False
