"""The memory backends of a running guest, as reported by QEMU's monitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snapmig.geometry import PAGE_SIZE
from snapmig.guests.answers import (
    FileOffset,
    FilePath,
    MemoryDevice,
    MemoryDevices,
    ObjectItems,
    PageSize,
    WrongAnswerError,
    typed,
)
from snapmig.guests.monitor import Monitor, MonitorError, words
from snapmig.system import huge_pages

__all__ = ("MEMFD", "GuestMemory", "find_memory")

MEMFD = "memory-backend-memfd"
"""Type of a backend in a file without a path."""


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """
    A memory backend of a guest.

    :param name: the backend's id, also the name of its RAM block
    :param size: bytes, whole pages
    :param shared: True for a file through which other processes see the guest's writes
    :param path: the file given to QEMU, or the directory of a file; None for a memfd or anonymous
        memory
    :param file_offset: start of the RAM in the file: bytes, whole pages
    :param kind: the backend's type, for example ``memory-backend-file``
    :param page_size: bytes of the host's pages behind it, as far as it is known: 2 MiB for huge
        pages
    """

    name: str
    size: int
    shared: bool
    path: str | None
    file_offset: int
    kind: str
    page_size: int = PAGE_SIZE


def find_memory(monitor: Monitor) -> tuple[GuestMemory, ...]:
    """
    Return a guest's memory backends, in reverse of QEMU's order.

    :raises MonitorError: QEMU does not report them, or reports something impossible
    """
    objects = monitor.ask(ObjectItems, "qom-list", path="/objects")
    kinds = {item.name: item.type.removeprefix("child<").removesuffix(">") for item in objects}
    found = [
        _describe(monitor, device, device.id, kinds.get(device.id, ""))
        for device in reversed(monitor.ask(MemoryDevices, "query-memdev"))
        if device.id is not None
    ]
    names = [memory.name for memory in found]
    if twice := [name for name in names if names.count(name) > 1]:
        message = f"QEMU lists the memory backend {words(twice[0])} twice"
        raise MonitorError(message, path=monitor.path)
    return tuple(found)


def _describe(monitor: Monitor, device: MemoryDevice, name: str, kind: str) -> GuestMemory:
    path: str | None = _property(monitor, name, "mem-path", FilePath | None) or None
    offset: int = _property(monitor, name, "offset", FileOffset | None) or 0
    # QEMU also reports memory-backend-ram as shared; in older versions it has no file.
    shared = device.share and (path is not None or kind == MEMFD)
    page_size = _page_size(monitor, name, path, kind)
    return GuestMemory(name, device.size, shared, path, offset, kind, page_size)


def _page_size(monitor: Monitor, name: str, path: str | None, kind: str) -> int:
    found = None
    if kind == MEMFD and _property(monitor, name, "hugetlb", bool):
        found = _property(monitor, name, "hugetlbsize", PageSize) or huge_pages.usual()
        if found & (found - 1):
            message = f"QEMU's hugetlbsize of RAM block {words(name)} is impossible: {found}"
            raise MonitorError(message, path=monitor.path)
    elif path is not None:
        found = huge_pages.named_by(monitor.peer and monitor.peer.pid, path)
    return found or PAGE_SIZE


def _property(monitor: Monitor, name: str, key: str, kind: Any) -> Any:
    try:
        value = monitor.execute("qom-get", path=f"/objects/{name}", property=key)
    except MonitorError:
        return None  # this kind of backend has no such property
    try:
        return typed(value, kind)
    except WrongAnswerError as error:
        message = f"QEMU's {key} of RAM block {words(name)} is impossible: {words(str(error))}"
        raise MonitorError(message, path=monitor.path) from error
