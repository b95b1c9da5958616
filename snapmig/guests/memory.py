"""Where a running guest's RAM is: the files behind its memory backends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.guests.monitor import Monitor, MonitorError

__all__ = ("GuestMemory", "find_memory", "open_memory")

_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """
    A memory backend of a guest.

    :param name: the backend's id, which is also the name of its RAM block
    :param size: bytes
    :param shared: whether other processes see what the guest writes
    :param path: the file that QEMU was given, None for a memfd or anonymous memory
    :param file_offset: where in the file the RAM starts
    """

    name: str
    size: int
    shared: bool
    path: str | None
    file_offset: int


def find_memory(monitor: Monitor) -> tuple[GuestMemory, ...]:
    """
    Return a guest's memory backends, in the order that QEMU lists them.

    :raises MonitorError: QEMU does not say
    """
    found = []
    for item in reversed(monitor.execute("query-memdev")):
        name = item.get("id")
        if name is None:
            continue
        path = _property(monitor, name, "mem-path")
        offset = int(_property(monitor, name, "offset") or 0)
        shared = bool(item.get("share")) and (path is not None or _is_memfd(monitor, name))
        found.append(GuestMemory(name, item["size"], shared, path, offset))
    return tuple(found)


def open_memory(memory: GuestMemory, pid: int, flags: int) -> int:
    """
    Open a backend's file, through QEMU's own descriptor where its path is gone.

    :param flags: as for :func:`os.open`
    :raises SnapmigError: it can't be found, or is too short
    """
    fd = os.open(_file_of(memory, pid), flags | os.O_CLOEXEC)
    size = os.fstat(fd).st_size
    if size < memory.file_offset + memory.size:
        os.close(fd)
        message = f"RAM block {memory.name!r} has {memory.size} bytes, its file {size}"
        raise SnapmigError(message, path=memory.path)
    return fd


def _file_of(memory: GuestMemory, pid: int) -> str:
    folder = Path(f"/proc/{pid}/fd")
    try:
        links = {str(item): _target(item) for item in folder.iterdir()}
    except PermissionError:
        links = {}
    for link, target in links.items():
        if memory.path is not None and _matches(target, memory.path):
            return link
    anonymous = [
        link
        for link, target in links.items()
        if target.startswith("/memfd:") and Path(link).stat().st_size == memory.size
    ]
    if memory.path is None and len(anonymous) == 1:
        return anonymous[0]
    if memory.path is not None and Path(memory.path).is_file():
        return memory.path
    found = f"{len(anonymous)} memfds of its size" if memory.path is None else "no such file"
    message = f"file of RAM block {memory.name!r} not found in QEMU's process {pid}: {found}"
    raise SnapmigError(message, path=memory.path)


def _matches(target: str, path: str) -> bool:
    # A directory as path: QEMU made a file of its own in it and unlinked it.
    plain = target.removesuffix(_DELETED)
    return plain == path or plain.startswith(f"{path.rstrip('/')}/qemu_back_mem.")


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def _property(monitor: Monitor, name: str, key: str) -> Any:
    try:
        return monitor.execute("qom-get", path=f"/objects/{name}", property=key) or None
    except MonitorError:
        return None  # this kind of backend has no such property


def _is_memfd(monitor: Monitor, name: str) -> bool:
    listed = monitor.execute("qom-list", path="/objects")
    kinds = {item["name"]: item["type"] for item in listed}
    return "memory-backend-memfd" in str(kinds.get(name, ""))
