"""A migration into a waiting QEMU, from that QEMU's side."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from snapmig.guests.answers import Identity, ObjectItems, Status
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError
from snapmig.guests.outgoing import Outgoing, explain
from snapmig.guests.settings import POSTCOPY, capabilities, parameters, switched_off_after
from snapmig.guests.watch import POLL_S, migration_of

__all__ = (
    "Start",
    "awaiting",
    "awaiting_postcopy",
    "guest_uuid",
    "recovering_postcopy",
    "wait_until_loaded",
    "waits_for_memory",
)

_NOTE = "snapmig-postcopy-"


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


@contextmanager
def awaiting_postcopy(guest: Guest, uri: str, identity: bytes) -> Iterator[Outgoing]:
    """
    Have QEMU listen for a postcopy migration inside the block, and put its settings back.

    :param identity: of the snapshot; noted in QEMU until the guest does not depend on it any more
    :raises MonitorError: QEMU can't, or refuses
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(capabilities(guest.monitor, POSTCOPY))
        except MonitorError as error:
            message = f"{error.message}{explain(error.message)}"
            raise MonitorError(message, path=error.path) from error
        stack.enter_context(_noted(guest, identity))
        guest.monitor.execute("migrate-incoming", uri=uri)
        yield Outgoing(guest, None, command="migrate-incoming")


@contextmanager
def recovering_postcopy(guest: Guest, uri: str, identity: bytes) -> Iterator[None]:
    """
    Have QEMU listen for the rest of a guest inside the block.

    :param identity: of the snapshot
    :raises MonitorError: its guest waits for the memory of another one, or QEMU refuses
    """
    notes = _notes(guest)
    if notes != [_note(identity)]:
        what = "another snapshot" if notes else "another source than snapmig"
        message = f"the guest waits for memory from {what}, expected one started from this snapshot"
        raise MonitorError(message, path=guest.monitor.path)
    with switched_off_after(guest.monitor, POSTCOPY):
        guest.monitor.execute("migrate-recover", uri=uri)
        yield
        _forget(guest, identity)


def waits_for_memory(guest: Guest) -> bool:
    """Return True if the guest runs and lacks memory, because its source has gone."""
    return migration_of(guest.monitor).status == "postcopy-paused"


@contextmanager
def _noted(guest: Guest, identity: bytes) -> Iterator[None]:
    # As the name of an object, because QEMU has no other place for it.
    for old in _notes(guest):
        guest.monitor.execute("object-del", id=old)
    values = {"qom-type": "secret", "id": _note(identity), "data": "snapmig"}
    guest.monitor.execute("object-add", **values)
    try:
        yield
    finally:
        with suppress(MonitorError):
            if not migration_of(guest.monitor).status.startswith("postcopy-"):
                _forget(guest, identity)


def _notes(guest: Guest) -> list[str]:
    objects = guest.monitor.ask(ObjectItems, "qom-list", path="/objects")
    return [item.name for item in objects if item.name.startswith(_NOTE)]


def _note(identity: bytes) -> str:
    return f"{_NOTE}{identity.hex()}"


def _forget(guest: Guest, identity: bytes) -> None:
    guest.monitor.execute("object-del", id=_note(identity))


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
