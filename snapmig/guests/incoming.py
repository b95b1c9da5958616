"""A migration into a waiting QEMU, from that QEMU's side."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from snapmig.guests.answers import Identity, Status
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError
from snapmig.guests.outgoing import Outgoing, explain
from snapmig.guests.settings import POSTCOPY, capabilities, parameters
from snapmig.guests.watch import POLL_S, migration_of

__all__ = ("Start", "awaiting", "awaiting_postcopy", "guest_uuid", "wait_until_loaded")


def guest_uuid(guest: Guest) -> bytes:
    """Return the UUID that QEMU compares with a channel's: 16 bytes, zeros if it has none."""
    return uuid.UUID(guest.monitor.ask(Identity, "query-uuid").uuid).bytes


@contextmanager
def awaiting(guest: Guest, uri: str, channels: int, compression: str) -> Iterator[Outgoing]:
    """
    Have QEMU listen for a multifd migration inside the block, and put its settings back.

    :param compression: of the channels: ``none`` or ``zstd``
    :raises MonitorError: QEMU refuses
    """
    wanted = {"multifd-channels": channels, "multifd-compression": compression}
    with capabilities(guest.monitor, "multifd"), parameters(guest.monitor, wanted):
        guest.monitor.execute("migrate-incoming", uri=uri)
        yield Outgoing(guest, None, command="migrate-incoming")


@contextmanager
def awaiting_postcopy(guest: Guest, uri: str) -> Iterator[Outgoing]:
    """
    Have QEMU listen for a postcopy migration inside the block, and put its settings back.

    :raises MonitorError: QEMU can't, or refuses
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(capabilities(guest.monitor, POSTCOPY))
        except MonitorError as error:
            message = f"{error.message}{explain(error.message)}"
            raise MonitorError(message, path=error.path) from error
        guest.monitor.execute("migrate-incoming", uri=uri)
        yield Outgoing(guest, None, command="migrate-incoming")


class Start:
    """
    A guest that is about to run: started if QEMU leaves that to us.

    :ivar at: when it ran, by :func:`time.monotonic`; None before
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._look: Callable[[], Status | None] | None = None
        self.at: float | None = None

    def look(self) -> None:
        """
        See whether it runs, without waiting for QEMU.

        :raises MonitorError: it can't be started
        """
        if self.at is not None:
            return
        if self._look is None:
            self._look = self._guest.monitor.begin(Status, "query-status")
            return
        answer = self._look()
        if answer is None:
            return
        self._look = None
        if answer.status == "paused":  # started with -S
            self._guest.monitor.begin(dict, "cont")
        elif answer.status != "inmigrate":
            self.at = time.monotonic()


def wait_until_loaded(guest: Guest, loading: Outgoing) -> None:
    """
    Wait until QEMU is ready to run the guest.

    :raises MonitorError: it failed after all
    """
    while migration_of(guest.monitor).status != "completed" or guest.status == "inmigrate":
        loading.check()
        time.sleep(POLL_S)
