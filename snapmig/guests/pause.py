"""A guest paused for a save, and resumed in every case."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from snapmig.guests.guard import Guard
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError, Stop, words
from snapmig.guests.settings import Commands, settings_now, wait_for_cleanup
from snapmig.guests.watch import AT_REST, POLL_S, migration_of
from snapmig.system.signals import HeldSignals

__all__ = ("Pause", "paused", "stop_of")

_CANCEL_S = 30.0


@dataclass
class Pause:
    """
    A pause of a guest, and its length.

    :param keeps_state: a migration must be refused at its end, because the guest's owner had
        stopped it
    :param stops: number of stops before it, during the monitor's connection
    """

    was_running: bool
    keeps_state: bool = False
    stops: int = 0
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    end: Callable[[], None] = lambda: None
    """Ends it now: resumes the guest before the end of the block."""


@contextmanager
def paused(
    guest: Guest, stream: socket.socket | None = None, *, private: str = ""
) -> Iterator[Pause]:
    """
    Keep the guest paused inside the block, and resume it afterwards in every case.

    If we are killed, or QEMU does not answer, a guard process resumes it; it is started first.

    :param stream: a connection that the guard must read to its end then, instead of cancelling
        the migration over it
    :param private: a path of a socket that the guard removes then, with its folder
    :raises MonitorError: QEMU would not save it now, or does not resume it
    :raises SnapmigError: the guard can't be started
    """
    with HeldSignals() as signals:
        guest.check_can_be_saved()
        pause = Pause(guest.status == "running", stops=len(guest.monitor.stops()))
        pause.keeps_state = not pause.was_running and guest.can_be_refused
        undo = settings_now(guest.monitor)
        guard = Guard(
            guest.monitor,
            resume=pause.was_running,
            undo=undo,
            stream=stream,
            private=private,
        )
        pause.started = time.monotonic()
        let_go = _once(partial(_let_go, guest, pause, guard, undo))

        def end() -> None:
            with HeldSignals():
                let_go()

        pause.end = end
        try:
            with signals.let_in():
                yield pause
        finally:
            let_go()


def stop_of(guest: Guest, pause: Pause) -> Stop | None:
    """Return the first stop of a pause, over or under way, None if there is none."""
    guest.monitor.execute("query-status")  # events of before come with the answer
    return next(iter(guest.monitor.stops()[pause.stops :]), None)


def _let_go(guest: Guest, pause: Pause, guard: Guard, undo: Commands) -> None:
    try:
        _end_migration(guest)
        if pause.was_running:
            _resume(guest, pause)
        stop = stop_of(guest, pause) if pause.was_running else None
        exact = None if stop is None else stop.seconds
        pause.seconds = time.monotonic() - pause.started if exact is None else exact
        wait_for_cleanup(guest.monitor)
        for command, values in undo:  # once more, because QEMU refuses it during a migration
            guest.monitor.execute(command, **values)
    except BaseException as error:
        guard.take_over()
        if not isinstance(error, MonitorError):
            raise
        message = f"{error.message}; process {guard.pid} will resume the guest"
        raise MonitorError(message, path=error.path) from error
    guard.dismiss()


def _end_migration(guest: Guest) -> None:
    deadline = time.monotonic() + _CANCEL_S
    while (state := migration_of(guest.monitor).status) not in AT_REST:
        if time.monotonic() > deadline:
            message = f"QEMU's migration is still {words(state)} {_CANCEL_S:.0f} s after "
            raise MonitorError(f"{message}it was cancelled", path=guest.monitor.path)
        guest.monitor.execute("migrate_cancel")
        time.sleep(POLL_S)


def _resume(guest: Guest, pause: Pause) -> None:
    # If it ended meanwhile, or its owner stopped it, it is left alone.
    if _is_left_stopped(guest, pause):
        guest.monitor.execute("cont")
    deadline = time.monotonic() + _CANCEL_S
    while (status := guest.status) in ("finish-migrate", "postmigrate"):
        if time.monotonic() > deadline:
            message = f"the guest is still {status} after {_CANCEL_S:.0f} s"
            raise MonitorError(message, path=guest.monitor.path)
        if status == "postmigrate":
            guest.monitor.execute("cont")
        time.sleep(POLL_S)
    if status == "running" and migration_of(guest.monitor).status == "cancelled":
        guest.monitor.execute("cont")  # takes back its disks, see guard_process


def _is_left_stopped(guest: Guest, pause: Pause) -> bool:
    # QEMU stops a guest for a background snapshot, and leaves it so if that fails then.
    return (
        guest.status == "paused"
        and (stop := stop_of(guest, pause)) is not None
        and stop.resumed_ns is None
        and migration_of(guest.monitor).status == "failed"
    )


def _once(work: Callable[[], None]) -> Callable[[], None]:
    # A function that does some work when it is called first, and never again.
    left = [work]
    return lambda: left.pop()() if left else None
