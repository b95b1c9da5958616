"""A snapshot's guest that runs at once, in a destination whose monitor belongs to somebody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from snapmig.images.qemu.shared import whole_stream
from snapmig.migration.dialing import Dialer
from snapmig.migration.recovery import ask_for_received
from snapmig.migration.sender import MainSender
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.peer import Peer
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.serving import Serving, continued, listed_blocks
from snapmig.operations.runs.working_set import load_working_set, write_working_set
from snapmig.system.signals import remark

__all__ = ("continue_at_peer", "serve_peer")

_SETTINGS = "it may lack the capability postcopy-ram, or expect TLS"
_REASON = (
    "the destination's own messages have the reason, such as memory in other pages than the saved "
    "guest's"
)
_RECOVER = "migrate-recover at its monitor, then send with recover"


def serve_peer(
    reading: Reading, peer: Peer, patience_s: float, file: str | os.PathLike[str] | None
) -> Serving:
    """
    Let a guest run at a destination, and send its memory.

    :param patience_s: seconds for the destination to listen
    :param file: with the packets to be sent first; made if it is not there
    :raises SnapmigError: the snapshot can't be sent so, or the destination does not take it
    """
    snapshot = reading.snapshot
    known = None if file is None else load_working_set(file, snapshot.geometry)
    dialer = Dialer(*peer)
    with (
        Serving(reading, *whole_stream(content_of(snapshot), "a migration")) as serving,
        closing(dialer.open_main(serving.stream.header, patience_s)) as connection,
    ):
        main = MainSender(connection, serving.take)
        with _remedy(main, serving):
            serving.run(main, known or (), lambda: None, lambda: None)
    if file is not None and known is None:
        write_working_set(file, snapshot.geometry, serving.asked)
    return serving


def continue_at_peer(reading: Reading, peer: Peer, patience_s: float) -> Serving:
    """
    Send the rest to a guest whose source was cut off; its owner has used ``migrate-recover``.

    :param patience_s: seconds for the destination to listen
    :raises SnapmigError: as of :func:`serve_peer`
    """
    inputs = whole_stream(content_of(reading.snapshot), "a migration")
    first = ask_for_received(listed_blocks(inputs[1]))
    with (
        closing(Dialer(*peer).open_main(first, patience_s)) as connection,
        continued(reading, *inputs, connection) as serving,
    ):
        main = MainSender(connection, serving.take)
        with _remedy(main, serving):
            serving.resume(main, lambda: None)
        return serving


@contextmanager
def _remedy(main: MainSender, serving: Serving) -> Iterator[None]:
    try:
        yield
    except MigrationError as error:
        error.args = (f"{error.message}; {_words(main, serving)}",)
        raise
    except BaseException as error:
        if serving.started:
            remark(error, f"if the guest runs there, {_RECOVER}")
        raise


def _words(main: MainSender, serving: Serving) -> str:
    if serving.asking:
        return f"the guest waits for the rest of its memory: {_RECOVER}"
    if serving.started:  # or all that was sent was not read
        return f"if the guest runs, {_RECOVER}; otherwise {_REASON}"
    return _REASON if main.loading else _SETTINGS
