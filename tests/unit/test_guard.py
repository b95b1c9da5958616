"""Facts about the guard that lets a guest go when snapmig is killed, with a monitor that plays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snapmig.guests.file_migrations import state_saved
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError
from snapmig.guests.pause import paused
from snapmig.guests.wait import MonitorWait
from tests.support.guests.fake_monitor import FakeMonitor
from tests.support.processes import children, open_files, state, wait_for

KILLED = """\
import os, signal, sys
from snapmig.guests.file_migrations import state_saved
from snapmig.guests.guest import Guest
from snapmig.guests.pause import paused
with Guest(sys.argv[1]) as guest, paused(guest, private=sys.argv[3]) as pause:
    state = os.memfd_create("state")
    if sys.argv[2] == "after":
        with state_saved(guest, state, keep=pause.keeps_state):
            os.killpg(0, signal.SIGKILL)
    if sys.argv[2] == "under way":
        guest.monitor.execute("migrate", uri="exec:true")
    os.killpg(0, signal.SIGKILL)
"""


@pytest.fixture
def monitor(shm: Path) -> Iterator[FakeMonitor]:
    """Give the monitor of a guest that runs."""
    (shm / "ram").write_bytes(b"data" * 4096)
    with FakeMonitor(shm / "qmp", shm / "ram") as monitor:
        yield monitor


def die(monitor: FakeMonitor, moment: str, path: str = "") -> int:
    """Have a process pause a guest, and its whole group killed then; return how it ended."""
    code = [sys.executable, "-c", KILLED, str(monitor.path), moment, path]
    return subprocess.run(code, start_new_session=True, check=False).returncode


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed(monitor: FakeMonitor, moment: str) -> None:
    """A guest whose snapmig was killed, with its process group, runs on."""
    code = die(monitor, moment)
    wait_for(lambda: not monitor.has_client)
    assert (code, monitor.status) == (-signal.SIGKILL, "running")


def test_killed_during_a_migration(monitor: FakeMonitor) -> None:
    """A migration that is under way when snapmig is killed is cancelled, also where that takes."""
    cancelled: list[str] = []

    def migrate(_: Any) -> dict[str, str]:
        monitor.status, monitor.migration = "finish-migrate", "device"
        return {}

    def cancel(_: Any) -> dict[str, str]:
        cancelled.append(monitor.migration)
        monitor.migration = "cancelling"
        if len(cancelled) == 3:
            monitor.status, monitor.migration = "postmigrate", "cancelled"
        return {}

    monitor.answers |= {"migrate": migrate, "migrate_cancel": cancel}
    die(monitor, "under way")
    wait_for(lambda: not monitor.has_client)
    assert (cancelled, monitor.status) == (["device", "cancelling", "cancelling"], "running")


def test_killed_while_qemu_is_awaited(monitor: FakeMonitor, shm: Path) -> None:
    """The socket for a migration goes with its folder when snapmig is killed."""
    place = shm / "private"
    place.mkdir()
    (place / "socket").touch()
    die(monitor, "before", str(place / "socket"))
    wait_for(lambda: not monitor.has_client)
    assert not place.exists()


KILLED_WITH_A_STREAM = """\
import os, signal, socket, sys
from snapmig.guests.file_migrations import state_saved
from snapmig.guests.guest import Guest
from snapmig.guests.pause import paused
stream = socket.socket(fileno=int(sys.argv[2]))
with Guest(sys.argv[1]) as guest, paused(guest, stream):
    guest.monitor.execute("migrate", uri="fd:stream")
    os.killpg(0, signal.SIGKILL)
"""


def test_killed_during_a_migration_not_to_be_cancelled(monitor: FakeMonitor) -> None:
    """Its stream is read to the end instead, so that QEMU comes to an end with it."""

    def migrate(_: Any) -> dict[str, str]:
        monitor.migration = "active"
        return {}

    monitor.answers |= {"migrate": migrate}
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(30)
        with ours:
            fd = ours.fileno()
            code = [sys.executable, "-c", KILLED_WITH_A_STREAM, str(monitor.path), str(fd)]
            subprocess.run(code, start_new_session=True, check=False, pass_fds=(fd,))
        theirs.sendall(bytes(4 << 20))  # more than fits into it
        monitor.migration = "completed"
        wait_for(lambda: not monitor.has_client)
    assert "migrate_cancel" not in monitor.names


def test_killed_beside_a_paused_guest(monitor: FakeMonitor) -> None:
    """A guest that its owner had stopped is not continued."""
    monitor.status = "paused"
    die(monitor, "after")
    wait_for(lambda: not monitor.has_client)
    assert "cont" not in monitor.names


def test_capabilities_are_put_back(monitor: FakeMonitor) -> None:
    """QEMU's settings for migrations are put back as they were, the last thing of all."""
    before = [{"capability": "x-ignore-shared", "state": True}]
    monitor.answers |= {"query-migrate-capabilities": before, "query-migrate-parameters": {}}
    die(monitor, "before")
    wait_for(lambda: not monitor.has_client)
    put_back = ("migrate-set-capabilities", {"capabilities": before})
    assert put_back in monitor.commands[monitor.names.index("query-migrate-parameters") :]


def test_settings_are_put_back_when_qemu_has_cleaned_up(monitor: FakeMonitor) -> None:
    """QEMU reads its settings again when it ends the channels of a migration that has failed."""
    answers = [[{"type": "migration"}], [{"type": "migration"}], []]
    monitor.answers |= {"query-yank": lambda _: answers.pop(0), "query-migrate-parameters": {}}
    die(monitor, "before")
    wait_for(lambda: not monitor.has_client)
    assert answers == []
    assert monitor.names[-1] == "migrate-set-parameters"


def test_guest_left_stopped_by_a_failed_snapshot(monitor: FakeMonitor) -> None:
    """QEMU stops a guest for a background snapshot; if that fails then, the guest is continued."""
    with Guest(str(monitor.path)) as guest, paused(guest):
        monitor.tell("STOP")
        monitor.status, monitor.migration = "paused", "failed"
    assert monitor.status == "running"


def test_guest_stopped_by_its_owner_meanwhile(monitor: FakeMonitor) -> None:
    """A guest that ran again before its owner stopped it stays stopped."""
    with Guest(str(monitor.path)) as guest, paused(guest):
        for second, event in enumerate(("STOP", "RESUME", "STOP"), 1):
            monitor.tell(event, second)
        monitor.status, monitor.migration = "paused", "failed"
    assert (monitor.status, "cont" in monitor.names) == ("paused", False)


def test_pause_is_that_of_the_first_stop(monitor: FakeMonitor) -> None:
    """The owner's own stops are none of ours."""
    with Guest(str(monitor.path)) as guest:
        with paused(guest) as pause:
            for second, event in ((1, "STOP"), (3, "RESUME"), (4, "STOP"), (9, "RESUME")):
                monitor.tell(event, second)
        assert pause.seconds == 2


def test_guard_leaves_with_the_pause(monitor: FakeMonitor) -> None:
    """No process is left when a pause is over."""
    before = set(children(os.getpid()))
    with Guest(str(monitor.path)) as guest, paused(guest):
        inside = set(children(os.getpid()))
    assert len(inside - before) == 1
    assert set(children(os.getpid())) <= before


def test_guard_holds_nothing_else(monitor: FakeMonitor) -> None:
    """A guard that waits has the monitor and a pipe open, and nothing else of ours."""
    before = children(os.getpid())
    with Guest(str(monitor.path)) as guest, paused(guest):
        (guard,) = set(children(os.getpid())) - set(before)
        # It watches us by the last thing that it opens; before that it may be at its imports.
        wait_for(lambda: any("pidfd" in name for name in open_files(guard).values()))
        names = open_files(guard)
        own = str(guest.monitor.fileno())
    kinds = {name: target.split(":")[0] for name, target in names.items()}
    wanted = {"0": "pipe", "1": "/dev/null", "2": "/dev/null", own: "socket"}
    assert wanted.items() <= kinds.items()
    assert set(kinds.values()) <= {*wanted.values(), "anon_inode"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_guard_hears_no_signal(monitor: FakeMonitor, number: signal.Signals) -> None:
    """Polite ends of programs do not end a guard, which has a session of its own."""
    before = children(os.getpid())
    with Guest(str(monitor.path)) as guest, paused(guest):
        (guard,) = set(children(os.getpid())) - set(before)
        wait_for(lambda: state(guard) == "S" and ignores(guard, number))
        os.kill(guard, number)
        assert (state(guard) not in "XZ", os.getsid(guard)) == (True, guard)


def ignores(pid: int, number: signal.Signals) -> bool:
    """Say whether a process ignores a signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def test_monitor_that_falls_silent(monitor: FakeMonitor) -> None:
    """A guest whose QEMU does not answer is let go when that answers again."""
    answers = threading.Event()

    def query(_: Any) -> dict[str, str]:
        if "migrate" in monitor.names:
            answers.wait(30)
        return {"status": monitor.migration} if monitor.migration != "none" else {}

    monitor.answers |= {"query-migrate": query}
    fd = os.memfd_create("state")
    wait = MonitorWait(2)
    with Guest(str(monitor.path), wait) as guest:  # noqa: SIM117 - the pause is what raises
        with pytest.raises(MonitorError, match=r"query-migrate in .*; process \d+ will resume"):
            with paused(guest) as pause, state_saved(guest, fd, keep=pause.keeps_state):
                pass
    os.close(fd)
    assert monitor.status == "postmigrate"
    answers.set()
    wait_for(lambda: not monitor.has_client)
    assert monitor.status == "running"


def test_migration_of_somebody_else(monitor: FakeMonitor) -> None:
    """A migration that somebody else began is left alone, and named."""
    monitor.migration = "active"
    with Guest(str(monitor.path)) as guest:  # noqa: SIM117 - the pause is what raises
        with pytest.raises(MonitorError, match="a migration of this guest is under way: active"):
            with paused(guest):
                pass
    assert "migrate_cancel" not in monitor.names


def test_guest_after_a_migration(monitor: FakeMonitor) -> None:
    """A guest paused since a migration is refused with a remedy, and not resumed."""
    monitor.status, monitor.migration = "postmigrate", "completed"
    with Guest(str(monitor.path)) as guest:  # noqa: SIM117 - the pause is what raises
        with pytest.raises(MonitorError, match="unless it runs elsewhere now, send"):
            with paused(guest):
                pass
    assert monitor.status == "postmigrate"
