"""A migration under way: its states, and the time limit on standing still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from snapmig.guests.answers import Migration
from snapmig.guests.monitor import Monitor, MonitorError, words
from snapmig.system.signals import HeldSignals

__all__ = ("AT_REST", "POLL_S", "STILL_S", "Watch", "cancel", "cancelled_on_error", "migration_of")

POLL_S = 0.002
AT_REST = ("none", "completed", "failed", "cancelled")
_UNDER_WAY = ("none", "setup", "wait-unplug", "active", "device", "failing", "cancelling")
"""Transient states; ``none`` is the moment before the first."""
_COMING_IN = (*_UNDER_WAY, "postcopy-active", "postcopy-recover-setup", "postcopy-recover")
"""Those of a migration to be loaded, too: none of ours goes out by postcopy."""

_CANCEL_S = 1.0

STILL_S = {"migrate": 120.0, "migrate-incoming": 3600.0, "migrate-recover": 3600.0}
"""
Seconds without progress before a migration counts as failed. A QEMU that reads does not count
bytes.
"""


def migration_of(monitor: Monitor) -> Migration:
    """Return the state of QEMU's last migration."""
    return monitor.ask(Migration, "query-migrate")


def cancel(monitor: Monitor) -> bool:
    """
    Cancel a migration before its connections are closed; return False if QEMU does not listen.

    So its log has no errors of connections that ended. While it sends the last pages of a stopped
    guest it does not listen, and their end lets it go on.
    """
    with suppress(MonitorError), HeldSignals():
        look = monitor.begin(dict, "migrate_cancel")
        end = time.monotonic() + _CANCEL_S
        while look() is None and time.monotonic() < end:
            time.sleep(POLL_S)
        return look() is not None
    return False


@contextmanager
def cancelled_on_error(
    monitor: Monitor,
    disconnect: Callable[[], None] = lambda: None,
    let_end: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """
    Cancel a migration begun inside the block if anything in it fails.

    The command that begins it may fail too, or be interrupted, after QEMU has begun.

    :param disconnect: called after that; closes our end, also a listening socket that QEMU may
        have connected to already, because QEMU cleans up only when its writes have ended
    :param let_end: called between the two, if QEMU listens
    """
    try:
        yield
    except BaseException:
        if cancel(monitor):
            let_end()
        disconnect()
        raise


class Watch:
    """
    Watches a migration already begun.

    :param command: the command that began it
    """

    def __init__(self, monitor: Monitor, command: str) -> None:
        self._monitor = monitor
        self._command = command
        self._last = Migration()
        self._moved = time.monotonic()

    def look(self) -> Migration:
        """
        Return its state.

        :raises MonitorError: it failed, is in an unknown state, or stands still
        """
        return self.judge(migration_of(self._monitor))

    def judge(self, answer: Migration) -> Migration:
        """
        Return a state just learnt.

        :raises MonitorError: as :meth:`look`
        """
        if answer.status in ("failed", "cancelled"):
            reason = "it does not say why" if answer.reason is None else words(answer.reason)
            raise self._error(f"QEMU could not {self._command.replace('-', ' ')}: {reason}")
        known = _UNDER_WAY if self._command == "migrate" else _COMING_IN
        if answer.status not in (*known, "completed"):
            found = words(answer.status)
            raise self._error(f"QEMU's migration is {found}, expected active, completed or failed")
        now = time.monotonic()
        if answer != self._last:
            self._last, self._moved = answer, now
        if now - self._moved > STILL_S[self._command]:
            limit = STILL_S[self._command]
            raise self._error(
                f"QEMU's migration is {answer.status} and moved nothing in {limit:.0f} s"
            )
        return answer

    def _error(self, message: str) -> MonitorError:
        return MonitorError(message, path=self._monitor.path)
