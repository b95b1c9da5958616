"""
Sends a guest to a QEMU that waits at a TCP address, for the measurement of links.

Call: ``python -m tests.bench.link_sender SNAPSHOT ADDRESS PORT JOBS WIRE``.
"""

import socket
import sys
from contextlib import ExitStack
from pathlib import Path

from snapmig.container.reader import SnapshotFile
from snapmig.images.qemu.shared import whole_stream
from snapmig.migration.packing import pack_hello
from snapmig.migration.sender import MainSender
from snapmig.migration.source_stream import SourceStream, has_flushes
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.parse import parse_wire
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.sending import send_over_channels

NO_UUID = bytes(16)


def send(snapshot: Path, address: tuple[str, int], jobs: int, wire: str) -> None:
    """Send a snapshot into a QEMU whose RAM block ``ram`` is its own, and new."""
    options = read_options(jobs, AUTO, None, None)
    with ExitStack() as stack:

        def connect(first: bytes) -> socket.socket:
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(first)
            return connection

        source = stack.enter_context(SnapshotFile(str(snapshot)))
        reading = stack.enter_context(Reading(source, options))
        content, state = whole_stream(content_of(source), "a migration")
        flushes = has_flushes(state.machine)
        stream = SourceStream(content, state, flushes=flushes, fresh={"ram"})
        main = MainSender(connect(stream.header))
        channels = [connect(pack_hello(number, NO_UUID)).fileno() for number in range(jobs)]
        send_over_channels(reading, stream, main, channels, parse_wire(wire), lambda: None)


if __name__ == "__main__":
    path, host, port, count, form = sys.argv[1:]
    send(Path(path), (host, int(port)), int(count), form)
