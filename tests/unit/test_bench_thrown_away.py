"""Facts about migrations that nobody keeps, with a scripted monitor in place of a guest's."""

import os
import socket

import pytest

from tests.bench.guest_runs import CAPABILITIES, set_capabilities
from tests.bench.machines import Running
from tests.bench.parallel import processes_at_work
from tests.bench.thrown_away import forget, stood_still, throw_away
from tests.support.guests.migration import MULTIFD, MigrationError

MIB = 1 << 20


class Scripted:
    """A monitor that sends some bytes over each connection and has given answers."""

    pid = os.getpid()

    def __init__(self, connections=1, **answer):
        self._connections = connections
        self._answer = {"status": "completed", "downtime": 7, **answer}
        self.commands = []

    def execute(self, command, **arguments):
        """Answer as QEMU does."""
        self.commands.append((command, arguments))
        if command == "migrate":
            self._send(arguments["uri"].removeprefix("unix:"))
        return {"query-migrate": self._answer, "query-status": {"status": "running"}}.get(command)

    def _send(self, path):
        opened = [socket.socket(socket.AF_UNIX) for _ in range(self._connections)]
        for one in opened:
            one.connect(path)
        for one in opened:
            one.sendall(bytes(MIB))
            one.close()


def running(guest, folder):
    """Return a guest behind a scripted monitor."""
    return Running(guest, folder, folder / "ram", folder / "qmp")


def test_all_connections_are_read_to_their_ends(shm):
    """There is one receiver for each; what is sent is more than sockets hold."""
    took = throw_away(running(Scripted(connections=3), shm), 2)
    assert took.wall > 0
    assert took.said["pause_seconds"] == 0.007
    assert not list(shm.iterdir())


def test_the_reason_of_a_failed_migration_is_qemus(shm):
    """It is no figure."""
    failed = Scripted(status="failed", **{"error-desc": "no luck"})
    with pytest.raises(MigrationError, match="failed: no luck"):
        throw_away(running(failed, shm), 0)


def test_a_connection_that_does_not_come_is_no_hang(shm):
    """The listening socket has a limit, and the receiver fails by it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(shm / "socket"))
        listener.listen()
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            forget(listener)


def test_receivers_end_with_their_block():
    """Even if what they wait for does not come."""

    def fail(_wait):
        raise KeyboardInterrupt

    ours, theirs = os.pipe()
    with pytest.raises(KeyboardInterrupt), processes_at_work(1, lambda _: os.read(ours, 1)) as wait:
        fail(wait)
    os.close(theirs)
    assert os.read(ours, 1) == b""  # nobody holds the other end
    os.close(ours)


def test_a_pause_goes_over_seconds(shm):
    """From the event STOP to RESUME, by their microseconds."""
    guest = Scripted()
    times = {"STOP": (5, 999_000), "RESUME": (6, 2_500)}
    guest.wait_event = lambda name, _timeout: {
        "timestamp": dict(zip(("seconds", "microseconds"), times[name], strict=True))
    }
    assert stood_still(running(guest, shm)) == pytest.approx(0.0035)


def test_earlier_capabilities_are_not_left(shm):
    """All are switched off before those that are wanted are on; only channels have a number."""
    guest = Scripted()
    set_capabilities(running(guest, shm), 3, MULTIFD)
    (_, off), (_, on), (_, parameters) = guest.commands
    assert off["capabilities"] == [{"capability": name, "state": False} for name in CAPABILITIES]
    wanted = [one["capability"] for one in on["capabilities"] if one["state"]]
    assert wanted == ["events", MULTIFD]
    assert parameters["multifd_channels"] == 3
    guest.commands.clear()
    set_capabilities(running(guest, shm), 3)
    assert "multifd_channels" not in guest.commands[-1][1]
