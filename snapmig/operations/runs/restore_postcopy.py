"""``restore --postcopy``: a guest that runs at once, and gets its memory meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any, NamedTuple

from snapmig.guests.guest import Guest
from snapmig.guests.incoming import Start, awaiting_postcopy, wait_until_loaded
from snapmig.images.qemu.shared import whole_stream
from snapmig.migration.connections import PrivateFolder
from snapmig.migration.sender import MainSender, connect
from snapmig.migration.wire import MigrationError
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.serving import Serving
from snapmig.operations.runs.working_set import load_working_set, write_working_set

__all__ = ("Served", "serve_guest")


class Served(NamedTuple):
    """
    The result of a restore by postcopy.

    :ivar seconds_to_run: from the beginning until the guest ran
    :ivar before: packets sent before that, of a recorded working set
    :ivar asked: packets that the guest asked for afterwards
    """

    data_pages: int
    seconds_to_run: float
    before: int
    asked: int

    def facts(self) -> dict[str, Any]:
        """Return the fields of a restore's result."""
        return {
            "seconds_to_run": round(self.seconds_to_run, 3),
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
    snapshot.index.check_digest()  # afterwards the guest depends on it
    known = None if file is None else load_working_set(file, snapshot.geometry)
    first, start = known or (), Start(guest)
    serving = Serving(reading, *whole_stream(content_of(snapshot), "a migration"))
    with serving, ExitStack() as stack:
        folder = stack.enter_context(PrivateFolder(guest.process_now.uid))
        loading = stack.enter_context(awaiting_postcopy(guest, folder.uri))

        def running() -> None:
            start.look()
            loading.check()

        try:
            connection = stack.enter_context(connect(str(folder.path), serving.stream.header))
            main = MainSender(connection, serving.take)
            serving.run(main, first, loading.check, running)
            wait_until_loaded(guest, loading)
        except MigrationError as error:
            raise loading.reason() or error from None
    guest.run()
    ran = time.monotonic() if start.at is None else start.at
    if file is not None and known is None:
        write_working_set(file, snapshot.geometry, serving.asked)
    return Served(serving.data_pages, ran - started, len(first), len(serving.asked))
