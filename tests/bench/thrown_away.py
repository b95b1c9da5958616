"""Migrations to receivers that keep nothing: QEMU's own part of a save, and QEMU's own pauses."""

import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.codecs import PACKET
from tests.bench.guest_runs import POLL_SECONDS, SECONDS, Took
from tests.bench.machines import Running
from tests.bench.parallel import processes_at_work
from tests.support.guests.migration import ENDED, MigrationError

ACCEPT_SECONDS = 30.0
READY_SECONDS = 0.1
"""Until the receivers wait for connections."""
EVENT_SECONDS = 1.0


def throw_away(running: Running, channels: int) -> Took:
    """
    Migrate a guest to processes that read and forget, one for each connection.

    They answer nothing, so QEMU must not wait for them: no return path. A running guest is stopped
    at the end, and must be let go.

    :param channels: connections besides the main one
    """
    with (
        tempfile.TemporaryDirectory(prefix="thrown-", dir=running.folder) as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = Path(folder, "socket")
        listener.bind(str(path))
        listener.listen(channels + 1)
        listener.settimeout(ACCEPT_SECONDS)
        with processes_at_work(channels + 1, lambda _number: forget(listener)) as wait:
            time.sleep(READY_SECONDS)
            before, begun = running.cpu_seconds(), time.monotonic()
            running.guest.execute("migrate", uri=f"unix:{path}")
            received = wait()
            wall = time.monotonic() - begun
        seconds = downtime(_wait_completed(running))
        cpu = running.cpu_seconds() - before + received.cpu
    return Took(wall, cpu, {"pause_seconds": seconds, "downtime_s": seconds})


def forget(listener: socket.socket) -> None:
    """Take a connection and read it to its end, always into the same memory."""
    buffer = bytearray(PACKET)
    connection, _ = listener.accept()
    with connection:
        while connection.recv_into(buffer):
            pass


def stood_still(running: Running) -> float:
    """Return the seconds between the last stop and resumption of a guest, by QEMU's clock."""
    stopped, resumed = (
        running.guest.wait_event(name, EVENT_SECONDS)["timestamp"] for name in ("STOP", "RESUME")
    )
    microseconds = resumed["microseconds"] - stopped["microseconds"]
    return float(resumed["seconds"] - stopped["seconds"] + microseconds / 1e6)


def downtime(answer: dict[str, Any]) -> float:
    """Return the seconds of the guest's pause by an answer to query-migrate, to a millisecond."""
    return float(answer["downtime"] / 1000)


def _wait_completed(running: Running) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while True:
        found = running.guest.execute("query-migrate")
        busy = running.guest.execute("query-status")["status"] == "finish-migrate"
        if found["status"] in ENDED and not busy:
            break
        if time.monotonic() > deadline:
            raise MigrationError(f"thrown away: still {found['status']} after {SECONDS:g} s")
        time.sleep(POLL_SECONDS)
    if found["status"] != "completed":
        raise MigrationError(f"thrown away: {found['status']}: {found.get('error-desc')}")
    return dict(found)
