"""``restore --postcopy``: a guest that runs at once, and gets its memory meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, NamedTuple

from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError
from snapmig.guests.guest import Guest
from snapmig.guests.incoming import (
    Start,
    awaiting_postcopy,
    recovering_postcopy,
    wait_until_loaded,
)
from snapmig.guests.monitor import MonitorError
from snapmig.guests.outgoing import Outgoing
from snapmig.guests.watch import migration_of
from snapmig.handlers.counters import Counter
from snapmig.images.plan import Content
from snapmig.images.qemu.shared import whole_stream
from snapmig.images.qemu.state import VmState
from snapmig.migration.address import Address
from snapmig.migration.dialing import Dialer
from snapmig.migration.recovery import ask_for_received
from snapmig.migration.sender import MainSender
from snapmig.migration.wire import MigrationError
from snapmig.operations.runs.guest_extras import with_page_sizes
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.serving import Serving, continued, listed_blocks
from snapmig.operations.runs.working_set import load_working_set, write_working_set
from snapmig.system.private_folder import PrivateFolder
from snapmig.system.signals import remark

__all__ = ("Served", "resume_serving", "serve_guest")


class Served(NamedTuple):
    """
    The result of a restore by postcopy.

    :ivar seconds_to_run: from the beginning until the guest ran; None if it ran before
    :ivar before: packets sent before that, of a recorded working set
    :ivar asked: packets that the guest asked for afterwards
    """

    data_pages: int
    seconds_to_run: float | None
    before: int
    asked: int

    def facts(self) -> dict[str, Any]:
        """Return the fields of a restore's result."""
        return {
            "seconds_to_run": self.seconds_to_run,
            "packets_before_run": self.before,
            "packets_asked_for": self.asked,
        }


def serve_guest(
    reading: Reading, guest: Guest, started: float, file: str | os.PathLike[str] | None
) -> Served:
    """
    Let a snapshot's guest run in a QEMU that waits, and send its memory meanwhile.

    :param started: beginning of the restore, by :func:`time.monotonic`
    :param file: with the packets to be sent first; made if it is not there
    :raises SnapmigError: the snapshot's device state does not fit this QEMU, or QEMU refuses it; or
        the guest runs, waits for memory, and can't get it
    """
    snapshot = reading.snapshot
    known = None if file is None else load_working_set(file, snapshot.geometry)
    start = Start(guest)
    identity = snapshot.superblock.snapshot_id
    serving = Serving(reading, *_stream_for(guest, snapshot))
    with serving, ExitStack() as stack, _remedy(guest):
        folder = stack.enter_context(PrivateFolder(guest.process_now.uid))
        loading = stack.enter_context(awaiting_postcopy(guest, folder.uri, identity))

        def running() -> None:
            start.look()
            loading.check()

        try:
            dialer = Dialer(Address(str(folder.path)))
            connection = stack.enter_context(closing(dialer.open_main(serving.stream.header)))
            folder.close()  # nothing is left of it even if we are killed
            main = MainSender(connection, serving.take)
            serving.run(main, known or (), loading.check, running)
            wait_until_loaded(guest, loading)
        except MigrationError as error:
            raise loading.reason() or error from None
    guest.run()
    ran = time.monotonic() if start.at is None else start.at
    if file is not None and known is None:
        write_working_set(file, snapshot.geometry, serving.asked)
    seconds, pages = round(ran - started, 3), int(serving.counters[Counter.DATA_PAGES])
    return Served(pages, seconds, serving.before, len(serving.asked))


def resume_serving(reading: Reading, guest: Guest) -> Served:
    """
    Send a guest that runs the memory it lacks, because the restore that started it was cut off.

    :raises MonitorError: the guest was not started from this snapshot
    :raises SnapmigError: as of :func:`serve_guest`
    """
    snapshot = reading.snapshot
    content, state = _stream_for(guest, snapshot)
    asked = ask_for_received(listed_blocks(state))
    with ExitStack() as stack, _remedy(guest):
        folder = stack.enter_context(PrivateFolder(guest.process_now.uid))
        identity = snapshot.superblock.snapshot_id
        stack.enter_context(recovering_postcopy(guest, folder.uri, identity))
        loading = Outgoing(guest, None, command="migrate-recover")
        try:
            dialer = Dialer(Address(str(folder.path)))
            connection = stack.enter_context(closing(dialer.open_main(asked)))
            folder.close()
            serving = stack.enter_context(continued(reading, content, state, connection))
            serving.resume(MainSender(connection, serving.take), loading.check)
            wait_until_loaded(guest, loading)
        except MigrationError as error:
            raise loading.reason() or error from None
        return Served(int(serving.counters[Counter.DATA_PAGES]), None, 0, len(serving.asked))


def _stream_for(guest: Guest, snapshot: SnapshotFile) -> tuple[Content, VmState]:
    # With the page sizes of this QEMU's memory, which may be others than the saved guest's.
    content, state = whole_stream(content_of(snapshot), "a migration")
    return content._replace(blocks=with_page_sizes(content.blocks, guest)), state


@contextmanager
def _remedy(guest: Guest) -> Iterator[None]:
    # A failure is not the end of a guest that runs.
    try:
        yield
    except BaseException as error:
        with suppress(MonitorError):
            if migration_of(guest.monitor).status.startswith("postcopy-"):
                words = "the guest waits for the rest of its memory: repeat the command to send it"
                remark(error, words)
                if isinstance(error, SnapmigError):
                    error.args = (f"{error.message}; {words}",)
        raise
