"""Saves of a guest that QEMU migrates to us: over multifd channels, or one connection."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

from snapmig.guests.addresses import find_addresses
from snapmig.guests.guest import MOST_CHANNELS, Guest
from snapmig.guests.limits import LiveLimits
from snapmig.guests.monitor import MonitorError
from snapmig.guests.outgoing import (
    Outgoing,
    migrating,
    migrating_in_background,
    migrating_over_stream,
    open_stream,
)
from snapmig.guests.pause import Pause, paused, stop_of
from snapmig.guests.settings import cleanup
from snapmig.images.qemu.state import VmState
from snapmig.migration.connections import Connections, PrivateSocket, accept_all
from snapmig.migration.draining import Connection, drain
from snapmig.migration.main_channel import MainChannel
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.parse import BACKGROUND, MULTIFD, STREAM
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.guest_extras import domain_xml, facts_of, place_ram
from snapmig.operations.runs.receive import HEAD_S, Receiver, open_receiver
from snapmig.stores.location import Location
from snapmig.system.signals import HeldSignals

__all__ = ("UnreachableError", "save_over_multifd", "save_over_stream")


_DRAIN_S = 10.0
"""Seconds for QEMU to close the connections of a migration that was cancelled."""


class UnreachableError(MonitorError):
    """QEMU could not connect to us: our socket is not in its mount namespace, or forbidden."""


def save_over_multifd(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save a guest that QEMU migrates to us over multifd channels.

    :param shown: the guest, for people
    :raises UnreachableError: QEMU can't connect to us
    """
    channels = min(options.jobs, MOST_CHANNELS)
    with (
        PrivateSocket(guest.process_now.uid) as private,
        paused(guest, private=str(private.path)) as pause,
    ):
        domain = domain_xml(guest, options)
        with (
            migrating(
                guest,
                private.uri,
                channels,
                _live_limits(options),
                private.close,
                partial(_let_end, guest, private),
            ) as outgoing,
            _with_reasons(outgoing),
            _accepted(guest, outgoing, private, channels) as connections,
        ):
            main = MainChannel(connections.main, shown, multifd=True)
            state = _read_head(guest, main, outgoing)
            with open_receiver(connections, main, state, path, options) as receiver:
                end = _End(guest, outgoing, main, receiver, pause)
                # A guest that is saved live runs on as soon as all of it has come: if the rest
                # fails, it is QEMU's all the same. Otherwise it is let go when it is stored.
                if options.live:
                    check = partial(_check_and_hurry, outgoing, receiver)
                    receiver.receive(check, end.let_go, [guest.monitor])
                    end.keep()
                else:
                    receiver.receive(outgoing.check, end.keep)
                result = receiver.finish(domain)
                end.let_go()
    return replace(result, pause_seconds=round(pause.seconds, 4))


def _check_and_hurry(outgoing: Outgoing, receiver: Receiver) -> None:
    outgoing.check()
    if outgoing.has_stopped:
        receiver.hurry()


def save_over_stream(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save a guest that QEMU migrates to us over one connection, also in the background.

    :param shown: the guest, for people
    """
    background = options.live == BACKGROUND
    guarded = background and guest.must_end_snapshots
    with (
        open_stream(guest) as (stream, uri),
        paused(guest, stream if guarded else None) as pause,
    ):
        domain = domain_xml(guest, options)
        at_start = find_addresses(guest.monitor) if background else None
        began_ns = time.time_ns()
        sending = (
            migrating_in_background(guest, uri, stream)
            if background
            else migrating_over_stream(guest, uri, stream, _live_limits(options))
        )
        with sending as outgoing, _with_reasons(outgoing):
            main = MainChannel(stream, shown, multifd=False)
            connections = Connections(stream, ())
            state = _read_head(guest, main, outgoing)
            with _received(outgoing, connections, main, state, path, options) as receiver:
                place_ram(receiver.source, at_start or find_addresses(guest.monitor))
                stop = stop_of(guest, pause) if background else None
                created_ns = None
                if background:  # libvirt passes on no events
                    created_ns = began_ns if stop is None else stop.stopped_ns
                result = _finish(guest, pause, outgoing, main, receiver, domain, created_ns)
            if not background:
                pause.started = outgoing.stopped_at or pause.started
    seconds = pause.seconds
    if background and stop is None:
        seconds = (outgoing.downtime_ms or 0) / 1000
    return replace(result, pause_seconds=round(seconds, 4))


def _live_limits(options: SaveOptions) -> LiveLimits | None:
    return options.live_limits if options.live else None


@contextmanager
def _accepted(
    guest: Guest, outgoing: Outgoing, private: PrivateSocket, channels: int
) -> Iterator[Connections]:
    def cancel(connections: Sequence[Connection]) -> None:
        if outgoing.cancel():
            _let_end(guest, private, connections)

    try:
        connections = accept_all(
            private.listener,
            channels,
            HEAD_S,
            outgoing.check,
            peer=guest.process_now,
            cancel=cancel,
        )
    except MonitorError as error:
        raise UnreachableError(error.message, path=error.path) from error
    private.close()
    with closing(connections):
        try:
            yield connections
        except BaseException:
            with HeldSignals():
                cancel(connections.channels)
            raise


def _let_end(guest: Guest, private: PrivateSocket, connections: Sequence[Connection] = ()) -> None:
    # Take what QEMU still sends of a cancelled migration, also over connections yet to come.
    listener = private.listener if private.is_open else None
    with HeldSignals():
        drain(connections, _DRAIN_S, listener, cleanup(guest.monitor))


@contextmanager
def _with_reasons(outgoing: Outgoing) -> Iterator[None]:
    # Whatever QEMU knows about the end of a connection is a better reason than its end.
    try:
        yield
    except MigrationError as error:
        raise outgoing.reason() or error from None


def _read_head(guest: Guest, main: MainChannel, outgoing: Outgoing) -> VmState:
    state = main.read_head(HEAD_S, outgoing.check)
    sizes = guest.facts.page_size
    blocks = tuple(block._replace(page_size=sizes(block.name)) for block in state.blocks)
    return state._replace(blocks=blocks)


@contextmanager
def _received(
    outgoing: Outgoing,
    connections: Connections,
    main: MainChannel,
    state: VmState,
    path: Location,
    options: SaveOptions,
) -> Iterator[Receiver]:
    with open_receiver(connections, main, state, path, options) as receiver:
        receiver.receive(outgoing.check)
        yield receiver


def _finish(
    guest: Guest,
    pause: Pause,
    outgoing: Outgoing,
    main: MainChannel,
    receiver: Receiver,
    domain: Mapping[str, bytes],
    created_ns: int | None = None,
) -> SaveResult:
    # The migration is acknowledged once the snapshot is on stable storage: until then the guest is
    # QEMU's.
    kept = {**receiver.attachments(), **facts_of(guest, STREAM)}
    receiver.source.attachments = kept
    result = receiver.finish(domain, created_ns)
    taken = not pause.keeps_state
    main.return_path.finish(taken=taken)
    outgoing.wait_for_end(taken=taken)
    return result


class _End:
    # The end of a migration over channels: the acknowledgement, and what the guest then goes with.
    def __init__(
        self,
        guest: Guest,
        outgoing: Outgoing,
        main: MainChannel,
        receiver: Receiver,
        pause: Pause,
    ) -> None:
        self._guest = guest
        self._outgoing = outgoing
        self._main = main
        self._receiver = receiver
        self._pause = pause
        self._is_over = False

    def keep(self) -> None:
        """Take all that a snapshot has besides pages."""
        place_ram(self._receiver.source, find_addresses(self._guest.monitor))
        kept = {**self._receiver.attachments(), **facts_of(self._guest, MULTIFD)}
        self._receiver.source.attachments = kept

    def let_go(self) -> None:
        """Acknowledge the migration, and resume the guest if it ran before."""
        if not self._is_over:
            self._is_over = True
            taken = not self._pause.keeps_state
            self._main.return_path.finish(taken=taken)
            self._outgoing.wait_for_end(taken=taken)
            self._pause.started = self._outgoing.stopped_at or self._pause.started
            self._pause.end()
