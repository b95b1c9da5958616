"""A snapshot's guest migrated to a destination whose monitor belongs to somebody else."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import NamedTuple

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.images.qemu.shared import whole_stream
from snapmig.migration.compression import WireCompression
from snapmig.migration.dialing import Connection, Dialer, closed_channel
from snapmig.migration.sender import MainSender
from snapmig.migration.source_stream import SourceStream, has_flushes
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.peer import Peer
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.saved_guest import load_guest
from snapmig.operations.runs.sending import send_over_channels
from snapmig.system.signals import remarked
from snapmig.workers.counters import Row

__all__ = ("Transfer", "send_to_peer")

_SETTINGS = "it may expect another number of channels, another UUID, or TLS"
_REASON = "the destination's own messages have the reason"
_CHANNELS_REASON = f"{_REASON}, such as another number of channels or another compression"


class Transfer(NamedTuple):
    """
    Settings of the destination, as its owner has told them.

    :ivar channels: 0 without multifd
    :ivar compression: of the channels
    :ivar uuid: of the waiting guest, 16 bytes
    :ivar patience_s: seconds for the destination to listen, and then to load
    """

    peer: Peer
    channels: int
    compression: WireCompression
    uuid: bytes
    patience_s: float


def send_to_peer(reading: Reading, transfer: Transfer) -> Row:
    """
    Send a snapshot, wait until the destination has everything, and return the workers' counters.

    :raises SnapmigError: the snapshot can't be sent so, or the destination does not take it
    """
    stream = _stream_of(reading, transfer)
    dialer = Dialer(*transfer.peer)
    with (
        closing(dialer.open_main(stream.header, transfer.patience_s)) as connection,
        remarked("the migration was broken off"),
    ):
        main = MainSender(connection)
        try:
            return _send(reading, stream, transfer, dialer, main, connection)
        except MigrationError as error:
            reason = _CHANNELS_REASON if transfer.channels else _REASON
            error.args = (f"{error.message}; {reason if main.loading else _SETTINGS}",)
            raise


def _send(
    reading: Reading,
    stream: SourceStream,
    transfer: Transfer,
    dialer: Dialer,
    main: MainSender,
    connection: Connection,
) -> Row:
    channels: list[Connection] = []

    def begin() -> None:
        main.wait_for_loading(transfer.patience_s, lambda: _check_open(channels))
        _check_open(channels)

    with ExitStack() as stack:
        for number in range(transfer.channels):
            channels.append(dialer.open_channel(number, transfer.uuid))
            stack.callback(channels[-1].close)
        return send_over_channels(
            reading,
            stream,
            main,
            channels or [connection],
            transfer.compression,
            lambda: None,
            begin=begin,
            multifd=bool(channels),
        )


def _stream_of(reading: Reading, transfer: Transfer) -> SourceStream:
    source = reading.snapshot
    saved = load_guest(source)
    try:
        content, state = whole_stream(content_of(source), "a migration")
    except SnapmigError as error:
        error.path = error.path or source.shown
        raise
    flushes = has_flushes(state.machine, saved.qemu_version)
    if transfer.channels and saved.state is not None and not flushes:
        # Its state has sections of its own with pages, and each section is a mark there.
        message = (
            f"machine type {state.machine} can't be sent pages over channels and as a part of the "
            "device state, as guests saved from shared memory have them: expected channels 0"
        )
        raise UnsupportedError(message, path=source.shown)
    # Nothing is known of the destination's memory, so zero pages of all blocks are sent.
    return SourceStream(content, state, flushes=flushes and transfer.channels > 0, fresh=())


def _check_open(channels: list[Connection]) -> None:
    number = closed_channel(channels)
    if number is not None:
        raise MigrationError(f"the destination closed channel {number} before it loaded")
