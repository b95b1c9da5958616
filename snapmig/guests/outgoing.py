"""A migration of a guest to somebody who listens, from QEMU's side."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from snapmig.guests.answers import Migration
from snapmig.guests.guest import LONGEST_DOWNTIME_MS, MOST_CHANNELS, Guest
from snapmig.guests.limits import LiveLimits
from snapmig.guests.monitor import MonitorError
from snapmig.guests.refusal import CAPABILITY as RETURN_PATH
from snapmig.guests.settings import BACKGROUND, capabilities, parameters
from snapmig.guests.watch import (
    AT_REST,
    POLL_S,
    Watch,
    cancel,
    cancelled_on_error,
    migration_of,
)
from snapmig.system.signals import HeldSignals

__all__ = (
    "Outgoing",
    "explain",
    "migrating",
    "migrating_in_background",
    "migrating_over_stream",
    "open_stream",
)

_ASK_S = 0.5
"""Seconds between two questions for the migration's state."""
_REST_S = 30.0
_STEP = 1 << 20
_NAME = "snapmig-stream"

_NOT_PERMITTED = (
    "its process may not use userfaultfd for that: run QEMU as root, set "
    "vm.unprivileged_userfaultfd=1, or give it /dev/userfaultfd"
)
_REASONS = {
    "host kernel": _NOT_PERMITTED,
    "serfaultfd not available": _NOT_PERMITTED,
    "Postcopy is not supported": _NOT_PERMITTED,
    "memory configuration": "the kernel can't write-protect some of its memory, such as huge pages "
    "before Linux 5.19",
}


@contextmanager
def migrating(
    guest: Guest,
    uri: str,
    channels: int,
    live: LiveLimits | None,
    give_up: Callable[[], None] = lambda: None,
    let_end: Callable[[], None] = lambda: None,
) -> Iterator[Outgoing]:
    """
    Have QEMU migrate the guest inside the block, and put its settings back.

    :param uri: of the connection, or of a listening socket
    :param channels: number of multifd channels, 0 for a single stream
    :param live: None to stop the guest at once
    :param give_up: closes our end; called if the block fails, and as that of :class:`Outgoing`
    :param let_end: takes the rest of QEMU's data; called before, if the migration was cancelled
    :raises MonitorError: QEMU refuses
    """
    wanted: dict[str, object] = {"max-bandwidth": 0}  # unlimited
    names = [RETURN_PATH]
    if channels:
        names.append("multifd")
        wanted |= {
            "multifd-channels": min(channels, MOST_CHANNELS),
            "multifd-compression": "none",
            "zero-page-detection": "multifd",
        }
    if live is None:
        wanted["downtime-limit"] = LONGEST_DOWNTIME_MS
    else:
        names.append("auto-converge")
        if live.downtime_ms is not None:
            wanted["downtime-limit"] = live.downtime_ms
    with (
        parameters(guest.monitor, wanted),
        capabilities(guest.monitor, *names),
        cancelled_on_error(guest.monitor, give_up, let_end),
    ):
        guest.monitor.execute("migrate", uri=uri)
        yield Outgoing(guest, None if live is None else live.pause_after_s, give_up)


@contextmanager
def open_stream(guest: Guest) -> Iterator[tuple[socket.socket, str]]:
    """
    Give QEMU one end of a connection; yield ours, and the URI of QEMU's.

    :raises MonitorError: QEMU did not take it
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            guest.monitor.send_descriptor(theirs.fileno(), "getfd", fdname=_NAME)
        try:
            yield ours, f"fd:{_NAME}"
        finally:
            with suppress(MonitorError):  # a migration uses it up, and QEMU may have gone
                guest.monitor.execute("closefd", fdname=_NAME)


@contextmanager
def migrating_over_stream(
    guest: Guest, uri: str, stream: socket.socket, live: LiveLimits | None
) -> Iterator[Outgoing]:
    """
    Have QEMU migrate the guest over one connection, as :func:`migrating`.

    :param stream: our end, closed before anything else if the block fails: QEMU's monitor may stand
        still until then
    """
    with migrating(guest, uri, 0, live, stream.close) as outgoing, closing(stream):
        yield outgoing


@contextmanager
def migrating_in_background(guest: Guest, uri: str, stream: socket.socket) -> Iterator[Outgoing]:
    """
    Have QEMU send the guest as it is now inside the block, while the guest runs on.

    :param uri: of the connection
    :param stream: our end, as for :func:`migrating_over_stream`; if QEMU is not to be interrupted,
        it is read to the end before it is closed
    :raises MonitorError: QEMU can't, with the reason
    """
    with ExitStack() as stack:
        stack.enter_context(parameters(guest.monitor, {"max-bandwidth": 0}))
        try:
            stack.enter_context(capabilities(guest.monitor, BACKGROUND))
        except MonitorError as error:
            reason = explain(error.message)
            message = f"{error.message}{reason}{'; a live save is possible' if reason else ''}"
            raise MonitorError(message, path=error.path) from error
        stack.enter_context(closing(stream))
        try:
            guest.monitor.execute("migrate", uri=uri)
        except MonitorError:  # so it has not begun
            raise
        except BaseException:  # a signal's
            _give_up(guest, stream)
            raise
        try:
            yield Outgoing(guest, None, lambda: _give_up(guest, stream))
        except BaseException:
            _give_up(guest, stream)
            raise


def _give_up(guest: Guest, stream: socket.socket) -> None:
    if guest.must_end_snapshots:
        with suppress(OSError), HeldSignals():
            stream.settimeout(_REST_S)
            while stream.recv(_STEP):
                pass
    stream.close()


def explain(words: str) -> str:
    """
    Return a remark about QEMU's words if it can't use userfaultfd, else an empty text.

    It tests that in its own process, and says little.
    """
    reasons = [reason for part, reason in _REASONS.items() if part in words]
    return f" ({reasons[0]})" if reasons else ""


class Outgoing:
    """
    A migration under way.

    :param pause_after_s: stop the guest after so many seconds; None if that was asked for already
    :param give_up: lets QEMU go on whose monitor stands still because nobody reads
    :param command: that began it
    """

    def __init__(
        self,
        guest: Guest,
        pause_after_s: float | None,
        give_up: Callable[[], None] = lambda: None,
        command: str = "migrate",
    ) -> None:
        self._guest = guest
        self._give_up = give_up
        self._monitor = guest.monitor
        self._watch = Watch(guest.monitor, command)
        self._asked = time.monotonic()
        self._look: Callable[[], Migration | None] | None = None
        self._stop_at = None if pause_after_s is None else self._asked + pause_after_s
        self._cancelled = False
        self._stops = len(guest.monitor.stops())
        self.downtime_ms: float | None = None
        self.stopped_at: float | None = None
        """When the guest was stopped, known at the end."""

    def check(self) -> None:
        """
        Look at the migration now and then, and stop the guest when its time has come.

        :raises MonitorError: it failed, with QEMU's reason
        """
        now = time.monotonic()
        if self._stop_at is not None and now > self._stop_at:
            self._stop_at = None
            values = {"downtime-limit": LONGEST_DOWNTIME_MS}
            self._monitor.begin(dict, "migrate-set-parameters", **values)
        if self._look is not None:
            answer = self._look()
            if answer is not None:
                self._look, self._asked = None, now
                self._watch.judge(answer)
        elif now - self._asked > _ASK_S:
            self._look = self._monitor.begin(Migration, "query-migrate")

    @property
    def has_stopped(self) -> bool:
        """True if QEMU has told that the guest stands still; libvirt does not pass that on."""
        self._monitor.take_events()
        return len(self._monitor.stops()) > self._stops

    def cancel(self) -> bool:
        """Cancel the migration before its connections are closed; return True if QEMU listens."""
        self._cancelled = True
        return cancel(self._monitor)

    def reason(self) -> MonitorError | None:
        """Return QEMU's reason for a failure that was noticed at its connections, if it has one."""
        self._give_up()
        end = time.monotonic() + _ASK_S
        while time.monotonic() < end:
            try:
                self._watch.look()
            except MonitorError as error:
                ours = self._cancelled and migration_of(self._monitor).status == "cancelled"
                return None if ours else error
            time.sleep(POLL_S)
        return None

    def wait_for_end(self, *, taken: bool) -> None:
        """
        Wait until QEMU has ended the migration.

        :param taken: False if it was refused, so that the guest stays QEMU's
        :raises MonitorError: it failed
        """
        if taken:
            # QEMU reports this a moment before it is done with the guest.
            while (answer := self._watch.look()).status != "completed" or (
                self._guest.status == "finish-migrate"
            ):
                time.sleep(POLL_S)
            self.downtime_ms = answer.downtime_ms
            if answer.downtime_ms is not None:
                self.stopped_at = time.monotonic() - answer.downtime_ms / 1000
            return
        deadline = time.monotonic() + _REST_S
        while migration_of(self._monitor).status not in AT_REST and time.monotonic() < deadline:
            time.sleep(POLL_S)
