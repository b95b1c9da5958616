"""The memory backends of a running guest, as QEMU's monitor describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from snapmig.geometry import PAGE_SIZE
from snapmig.guests.monitor import Monitor, MonitorError

__all__ = ("MEMFD", "GuestMemory", "find_memory")

MEMFD = "memory-backend-memfd"
"""The type of a backend in a file that has no path."""

_MOST_BYTES = 1 << 56

_Size = Annotated[int, msgspec.Meta(gt=0, le=_MOST_BYTES, multiple_of=PAGE_SIZE)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=_MOST_BYTES, multiple_of=PAGE_SIZE)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Path = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\x00]*$")]


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """
    A memory backend of a guest.

    :param name: the backend's id, which is also the name of its RAM block
    :param size: bytes, whole pages
    :param shared: whether it is a file in which other processes see what the guest writes
    :param path: the file, or the directory of a file, that QEMU was given; None for a memfd or
        anonymous memory
    :param file_offset: where in the file the RAM starts: bytes, whole pages
    :param kind: the backend's type, for example ``memory-backend-file``
    """

    name: str
    size: int
    shared: bool
    path: str | None
    file_offset: int
    kind: str


class _Device(msgspec.Struct):
    size: _Size
    share: bool
    id: _Id | None = None


class _Object(msgspec.Struct):
    name: str
    type: str


def find_memory(monitor: Monitor) -> tuple[GuestMemory, ...]:
    """
    Return a guest's memory backends, in the opposite order to QEMU's.

    :raises MonitorError: QEMU does not say, or says what can't be
    """
    devices = _typed(monitor, list[_Device], "query-memdev", monitor.execute("query-memdev"))
    listed = monitor.execute("qom-list", path="/objects")
    objects = _typed(monitor, list[_Object], "qom-list", listed)
    kinds = {item.name: item.type.removeprefix("child<").removesuffix(">") for item in objects}
    found = [
        _describe(monitor, device, device.id, kinds.get(device.id, ""))
        for device in reversed(devices)
        if device.id is not None
    ]
    names = [memory.name for memory in found]
    if twice := [name for name in names if names.count(name) > 1]:
        message = f"QEMU lists the memory backend {twice[0]!r} twice"
        raise MonitorError(message, path=monitor.path)
    return tuple(found)


def _describe(monitor: Monitor, device: _Device, name: str, kind: str) -> GuestMemory:
    path: str | None = _property(monitor, name, "mem-path", _Path | None) or None
    offset: int = _property(monitor, name, "offset", _Offset | None) or 0
    # QEMU also calls memory-backend-ram shared, of which older ones have no file.
    shared = device.share and (path is not None or kind == MEMFD)
    return GuestMemory(name, device.size, shared, path, offset, kind)


def _property(monitor: Monitor, name: str, key: str, kind: Any) -> Any:
    try:
        value = monitor.execute("qom-get", path=f"/objects/{name}", property=key)
    except MonitorError:
        return None  # this kind of backend has no such property
    return _typed(monitor, kind, f"qom-get of {name!r} {key}", value)


def _typed(monitor: Monitor, kind: Any, command: str, answer: Any) -> Any:
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        message = f"QEMU's answer to {command} can't be: {error}"
        raise MonitorError(message, path=monitor.path) from error
