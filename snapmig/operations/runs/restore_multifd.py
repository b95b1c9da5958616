"""``restore ... qmp:SOCKET`` over multifd: snapmig migrates the guest into a waiting QEMU."""

from __future__ import annotations

from contextlib import ExitStack, closing

from snapmig.guests.guest import MOST_CHANNELS, Guest
from snapmig.guests.incoming import awaiting, guest_uuid, wait_until_loaded
from snapmig.handlers.counters import Counter
from snapmig.images.qemu.shared import whole_stream
from snapmig.migration.address import Address
from snapmig.migration.compression import WireCompression
from snapmig.migration.dialing import Dialer
from snapmig.migration.sender import MainSender
from snapmig.migration.source_stream import SourceStream, has_flushes
from snapmig.migration.wire import MigrationError
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.sending import send_over_channels
from snapmig.system.private_folder import PrivateFolder

__all__ = ("send_to_guest",)


def send_to_guest(reading: Reading, guest: Guest, compression: WireCompression) -> int:
    """
    Send a snapshot into a QEMU that waits, and let the guest run; return its nonzero pages.

    :param compression: of the channels
    :raises SnapmigError: the snapshot's device state does not fit this QEMU, or QEMU refuses it
    """
    content, state = whole_stream(content_of(reading.snapshot), "a migration")
    stream = SourceStream(
        content,
        state,
        flushes=has_flushes(state.machine, guest.version),
        fresh={item.name for item in guest.facts.memory if item.path is None},
    )
    channels = min(reading.options.jobs, MOST_CHANNELS)
    identity = guest_uuid(guest)
    with ExitStack() as stack:
        folder = stack.enter_context(PrivateFolder(guest.process_now.uid))
        dialer, words = Dialer(Address(str(folder.path))), compression.name.lower()
        loading = stack.enter_context(awaiting(guest, folder.uri, channels, words))
        try:
            main = MainSender(stack.enter_context(closing(dialer.open_main(stream.header))))
            opened = [
                stack.enter_context(closing(dialer.open_channel(number, identity)))
                for number in range(channels)
            ]
            folder.close()  # nothing is left of it even if we are killed
            counters = send_over_channels(reading, stream, main, opened, compression, loading.check)
            wait_until_loaded(guest, loading)
        except MigrationError as error:
            raise loading.reason() or error from None
    guest.run()
    return int(counters[Counter.DATA_PAGES])
