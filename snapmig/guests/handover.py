"""
Files for QEMU to migrate into or out of, passed as descriptors.

Neither a path nor the permissions of QEMU's user can be in the way then, and the file needs no
name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from snapmig.guests.monitor import Monitor, MonitorError
from snapmig.system.files import descriptor_path

__all__ = ("hand_over",)

_NAME = "snapmig"
_FILE_URI = (8, 2)
"""From this version on QEMU opens files, and sets of descriptors; 11.0 offers no other way."""


@contextmanager
def hand_over(monitor: Monitor, fd: int, access: int, version: tuple[int, ...]) -> Iterator[str]:
    """
    Give QEMU a file for one migration, and yield the URI for it.

    :param fd: a descriptor of the file; QEMU gets one of its own
    :param access: ``os.O_WRONLY`` if QEMU writes it, ``os.O_RDONLY`` if it reads it
    :param version: of QEMU
    :raises MonitorError: QEMU did not take it
    """
    # QEMU insists on the exact access mode, so O_RDWR will not do for both.
    own = os.open(descriptor_path(fd), access | os.O_CLOEXEC)
    try:
        uri, undo = _send(monitor, own, version)
    finally:
        os.close(own)
    try:
        yield uri
    finally:
        with suppress(MonitorError):  # a migration uses up the one, and QEMU may have gone
            monitor.execute(undo[0], **undo[1])


def _send(
    monitor: Monitor, fd: int, version: tuple[int, ...]
) -> tuple[str, tuple[str, dict[str, object]]]:
    # Return the URI, and the command to close the file behind it.
    if version >= _FILE_URI:
        number = int.from_bytes(os.urandom(4)) >> 1
        monitor.send_descriptor(fd, "add-fd", opaque=_NAME, **{"fdset-id": number})
        return f"file:/dev/fdset/{number}", ("remove-fd", {"fdset-id": number})
    monitor.send_descriptor(fd, "getfd", fdname=_NAME)
    return f"fd:{_NAME}", ("closefd", {"fdname": _NAME})
