"""
Migrations of QEMU's into a file that we hand over, and from one: of a device state, or of all.

Neither path, permission nor disk is in the way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from snapmig.guests.guest import LONGEST_DOWNTIME_MS, MOST_CHANNELS, Guest
from snapmig.guests.handover import hand_over
from snapmig.guests.refusal import CAPABILITY as RETURN_PATH
from snapmig.guests.refusal import copy_and_refuse
from snapmig.guests.settings import capabilities, known_capabilities, parameters
from snapmig.guests.watch import AT_REST, POLL_S, Watch, cancelled_on_error, migration_of

__all__ = ("file_format", "load_file", "load_state", "load_stream", "save_file", "state_saved")

_CANCEL_S = 30.0
_MAPPED, _STREAM = "mapped-ram", "qemu-stream"


@contextmanager
def state_saved(guest: Guest, fd: int, *, keep: bool) -> Iterator[None]:
    """
    Have QEMU stop the guest and write its device state, without shared RAM, before the block.

    The settings for that are put back after it, and a guest resumed in the block does not wait.

    :param fd: an empty file to write to
    :param keep: refuse the migration at its end, so that a guest stopped by its owner keeps its
        state
    :raises MonitorError: QEMU could not, with its reason
    """
    if keep:
        _migrate_refused(guest, fd, "x-ignore-shared")
        yield
        return
    with capabilities(guest.monitor, "x-ignore-shared"), _file(guest, fd, os.O_WRONLY) as uri:
        _send(guest, uri)
        yield


def load_state(guest: Guest, fd: int) -> None:
    """
    Have a waiting QEMU read a device state; RAM must be in place already.

    :param fd: the file to read
    :raises MonitorError: QEMU could not, with its reason
    """
    with capabilities(guest.monitor, "x-ignore-shared"), _file(guest, fd, os.O_RDONLY) as uri:
        _migrate(guest, "migrate-incoming", uri)


def load_stream(guest: Guest, fd: int) -> None:
    """
    Have a waiting QEMU read a classic stream.

    :param fd: the file to read
    :raises MonitorError: QEMU could not, with its reason
    """
    with _file(guest, fd, os.O_RDONLY) as uri:
        _migrate(guest, "migrate-incoming", uri)


def file_format(guest: Guest) -> str:
    """Format of files written and read by this QEMU: classic before QEMU 9.0."""
    known = known_capabilities(guest.monitor)
    return _MAPPED if "mapped-ram" in known else _STREAM


def save_file(guest: Guest, fd: int, channels: int, poll: Callable[[], None], *, keep: bool) -> str:
    """
    Have QEMU stop the guest and write all of it; return the format of the file.

    :param fd: an empty file to write to
    :param channels: number of QEMU's writing threads, if the format has them
    :param poll: called often
    :param keep: as of :func:`state_saved`
    :raises MonitorError: QEMU could not, with its reason
    """
    wanted = {
        "multifd-channels": min(channels, MOST_CHANNELS),
        "multifd-compression": "none",
        "direct-io": False,  # needs a descriptor of its own
        "max-bandwidth": 0,  # unlimited
        "downtime-limit": LONGEST_DOWNTIME_MS,  # stop at once, write each page once
    }
    with parameters(guest.monitor, wanted):
        if keep:
            _migrate_refused(guest, fd)
            return _STREAM
        mapped = file_format(guest) == _MAPPED
        with (
            capabilities(guest.monitor, *(("mapped-ram", "multifd") if mapped else ())),
            _file(guest, fd, os.O_WRONLY) as uri,
        ):
            _send(guest, uri, poll)
    return file_format(guest)


def load_file(guest: Guest, fd: int) -> None:
    """
    Have a waiting QEMU read a whole guest.

    :param fd: the file to read, in :func:`file_format`
    :raises MonitorError: QEMU could not, with its reason
    """
    mapped = file_format(guest) == _MAPPED
    with (
        capabilities(guest.monitor, *(("mapped-ram",) if mapped else ())),
        parameters(guest.monitor, {"direct-io": False}),
        _file(guest, fd, os.O_RDONLY) as uri,
    ):
        _migrate(guest, "migrate-incoming", uri)


def _file(guest: Guest, fd: int, access: int) -> AbstractContextManager[str]:
    return hand_over(guest.monitor, fd, access, guest.version)


def _send(guest: Guest, uri: str, poll: Callable[[], None] = lambda: None) -> None:
    with cancelled_on_error(guest.monitor):
        _migrate(guest, "migrate", uri, poll)


def _migrate(guest: Guest, command: str, uri: str, poll: Callable[[], None] = lambda: None) -> None:
    guest.monitor.execute(command, uri=uri)
    watch = Watch(guest.monitor, command)
    # QEMU reports this a moment before it is done with the guest.
    while watch.look().status != "completed" or guest.status == "finish-migrate":
        poll()
        time.sleep(POLL_S)


def _migrate_refused(guest: Guest, fd: int, *names: str) -> None:
    with capabilities(guest.monitor, RETURN_PATH, *names):
        copy_and_refuse(guest.monitor, fd)
        deadline = time.monotonic() + _CANCEL_S
        while migration_of(guest.monitor).status not in AT_REST and time.monotonic() < deadline:
            time.sleep(POLL_S)
