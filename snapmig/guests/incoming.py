"""A migration into a waiting QEMU, from that QEMU's side."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from snapmig.guests.answers import Identity
from snapmig.guests.guest import Guest
from snapmig.guests.outgoing import Outgoing
from snapmig.guests.settings import capabilities, parameters
from snapmig.guests.watch import POLL_S, migration_of

__all__ = ("awaiting", "guest_uuid", "wait_until_loaded")


def guest_uuid(guest: Guest) -> bytes:
    """Return the UUID that QEMU compares with a channel's: 16 bytes, zeros if it has none."""
    return uuid.UUID(guest.monitor.ask(Identity, "query-uuid").uuid).bytes


@contextmanager
def awaiting(guest: Guest, uri: str, channels: int, compression: str) -> Iterator[Outgoing]:
    """
    Have QEMU listen for a multifd migration inside the block, and put its settings back.

    :param compression: of the channels: ``none``, ``zstd`` or ``zlib``
    :raises MonitorError: QEMU refuses
    """
    wanted = {"multifd-channels": channels, "multifd-compression": compression}
    with capabilities(guest.monitor, "multifd"), parameters(guest.monitor, wanted):
        guest.monitor.execute("migrate-incoming", uri=uri)
        yield Outgoing(guest, None, command="migrate-incoming")


def wait_until_loaded(guest: Guest, loading: Outgoing) -> None:
    """
    Wait until QEMU is ready to run the guest.

    :raises MonitorError: it failed after all
    """
    while migration_of(guest.monitor).status != "completed" or guest.status == "inmigrate":
        loading.check()
        time.sleep(POLL_S)
