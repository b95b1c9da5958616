"""Facts about a guest's monitor: how long it is waited for, and what it may answer."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.guests import monitor as monitors
from snapmig.guests import watch
from snapmig.guests.file_migrations import state_saved
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import Monitor, MonitorError
from snapmig.guests.pause import paused
from snapmig.guests.wait import MonitorWait
from tests.support import program
from tests.support.guests.fake_monitor import FakeMonitor, Raw, Refused, Silent
from tests.support.outcome import Outcome
from tests.support.processes import wait_for

SHORT = MonitorWait(0.2)


@pytest.fixture
def fake(shm: Path) -> Iterator[Callable[..., FakeMonitor]]:
    """Give a function that makes a monitor of a small guest, which listens until the test's end."""
    (shm / "ram").write_bytes(b"data" * 4096)
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            FakeMonitor(shm / "qmp", shm / "ram", **options)
        )


@pytest.fixture
def snapshot(shm: Path) -> Path:
    """Give a snapshot of a guest."""
    (shm / "first.ram").write_bytes(b"data" * 4096)
    with FakeMonitor(shm / "first", shm / "first.ram"):
        snapmig.save(f"qmp:{shm / 'first'}", shm / "snap", jobs=1)
    return shm / "snap"


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_held_monitor(
    fake: Callable[..., FakeMonitor],
    snapshot: Path,
    shm: Path,
    cli: Callable[..., Outcome],
    verb: str,
) -> None:
    """A monitor that somebody else holds is an error in one sentence after --monitor-timeout."""
    image = f"qmp:{fake(greets=False).path}"
    words = (image, shm / "new") if verb == "save" else (snapshot, image)
    outcome = cli(verb, "--monitor-timeout", "0.2", *words)
    said = f"snapmig: {shm}/qmp: no QEMU monitor answers here in 0.2 s: somebody else may hold it"
    outcome.fails(1, start=said, lines=1)


def test_no_room_at_the_socket(shm: Path) -> None:
    """A socket that takes no more connections is waited for no longer than one that is silent."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(shm / "qmp"))
        server.listen(0)
        first.connect(str(shm / "qmp"))
        with pytest.raises(MonitorError, match=r"no QEMU monitor answers here in 0\.2 s"):
            Monitor(str(shm / "qmp"), SHORT)


def test_notice(
    fake: Callable[..., FakeMonitor], cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a monitor is waited for is said once, before the end of the wait."""
    monkeypatch.setattr(monitors, "_NOTICE_S", 0.1)
    path = fake(greets=False).path
    outcome = cli("save", "--monitor-timeout", "2", f"qmp:{path}", path.with_name("snap"))
    notice = f"monitor {path} does not answer; somebody else may hold it; waiting up to 2 s"
    assert outcome.err.splitlines()[0] == f"snapmig: {notice}"
    assert outcome.err.count("does not answer") == 1


def test_no_notice_of_a_prompt_monitor(
    fake: Callable[..., FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said of a monitor that greets at once."""
    monkeypatch.setattr(monitors, "_NOTICE_S", 0.0)
    monkeypatch.setattr(monitors, "_MOMENT_S", 30.0)  # its thread may be waiting for a processor
    heard: list[str] = []
    Monitor(str(fake().path), MonitorWait(30, heard.append)).close()
    assert heard == []


def test_monitor_that_greets_late(
    fake: Callable[..., FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor whose other client leaves while it is waited for is used."""
    monkeypatch.setattr(monitors, "_NOTICE_S", 0.0)
    monitor = fake()
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(monitor.path))
        wait_for(lambda: monitor.has_client)
        wait = MonitorWait(30, lambda _: other.close())
        with Monitor(str(monitor.path), wait) as ours:
            assert ours.execute("query-status")["status"] == "running"


@pytest.mark.parametrize("held", ["greeting", "command"])
def test_interrupt_while_a_monitor_is_waited_for(
    fake: Callable[..., FakeMonitor], shm: Path, held: str
) -> None:
    """Ctrl-C ends the wait for a greeting, and for an answer, at once."""
    monitor = fake(greets=held != "greeting", query_memdev=Silent())
    words = ("--monitor-timeout", 300, f"qmp:{monitor.path}", shm / "snap")
    process = program.start("save", *words)
    try:
        wait_for(
            lambda: monitor.has_client if held == "greeting" else "query-memdev" in monitor.names
        )
        process.send_signal(signal.SIGINT)
        outcome = program.end(process, timeout=60)  # and not the 300 s of the wait
    finally:
        process.kill()
        process.communicate()
    outcome.fails(130, err="snapmig: interrupted by SIGINT\n")


HOSTILE: dict[str, Any] = {
    "null": None,
    "true": True,
    "number": 7,
    "negative": -1,
    "large": 1 << 70,
    "fraction": 1.5,
    "text": "running",
    "long text": "x" * 5000,
    "text of numbers": ["1", "2"],
    "list": [7],
    "list of lists": [[[]]],
    "list of null": [None],
    "list of objects": [{}],
    "numbers in fields": {"status": 7, "qemu": 7, "error-desc": 7, "ram": 7},
    "null in fields": {"status": None, "qemu": None, "ram": None},
    "wrong in list": [{"id": 7, "size": "x", "capability": 7, "state": 7, "name": 7, "type": 7}],
    "negative in list": [{"id": "ram", "size": -4096, "share": True, "capability": "multifd"}],
    "half a character": [{"id": "\ud800", "size": 4096, "share": True}],
    "half a character in a name": {"status": "running", "\ud800": 1},
    "deep": json.loads("[" * 400 + "]" * 400),
}
COMMANDS = ("query-status", "query-version", "query-memdev", "query-migrate")
COMMANDS += ("query-migrate-capabilities", "query-migrate-parameters", "qom-get")
SOUND = {("qom-get", "text"), ("qom-get", "long text")}
SOUND |= {("query-migrate-parameters", f"{kind} in fields") for kind in ("numbers", "null")}
"""What is no wrong answer, or refused for what it says."""
WRONG = [(c, h) for c in COMMANDS for h in HOSTILE if (c, h) not in SOUND]


def touch(path: Path) -> None:
    """Do with a guest what a save does, but for its RAM."""
    with Guest(str(path)) as guest, paused(guest) as pause:
        fd = os.memfd_create("state")
        try:
            with state_saved(guest, fd, keep=pause.keeps_state):
                pass
        finally:
            os.close(fd)


@pytest.mark.parametrize(("command", "hostile"), WRONG)
def test_wrong_answer(fake: Callable[..., FakeMonitor], command: str, hostile: str) -> None:
    """An answer of a wrong type is an error that names the command, what is there and expected."""
    monitor = fake(**{command.replace("-", "_"): HOSTILE[hostile]})
    with pytest.raises(MonitorError) as refused:
        touch(monitor.path)
    words = str(refused.value)
    named = re.search(rf"QEMU's answer to {command} is invalid: found .*, expected ", words)
    assert (bool(named), len(words) < 1000, "\n" in words) == (True, True, False)


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_answer_on_the_command_line(
    fake: Callable[..., FakeMonitor], shm: Path, cli: Callable[..., Outcome], command: str
) -> None:
    """An answer of a wrong type ends a save with one sentence and exit code 1, and no file."""
    monitor = fake(**{command.replace("-", "_"): 7})
    outcome = cli("save", f"qmp:{monitor.path}", shm / "snap", "-j", 1)
    said = outcome.err.startswith(f"snapmig: {monitor.path}: QEMU's answer to {command} is invalid")
    outcome.fails(1, lines=1)
    assert said
    assert not (shm / "snap").exists()


JUNK = {
    "no JSON": b"what?\r\n",
    "half": b'{"return": \r\n',
    "a list": b"[]\r\n",
    "no object": b'"x"\r\n',
    "not UTF-8": b'{"return": "\xff"}\r\n',
    "too long a line": b"x" * (11 << 20),
    "an error without a class": b'{"error": 7}\r\n',
    "deep": b"[" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("junk", JUNK)
def test_junk(
    fake: Callable[..., FakeMonitor], shm: Path, cli: Callable[..., Outcome], junk: str
) -> None:
    """Anything but QMP is an error of one sentence, with exit code 1."""
    monitor = fake(query_version=Raw(JUNK[junk]))
    path = f"qmp:{monitor.path}"
    outcome = cli("save", "--monitor-timeout", "5", path, shm / "snap")
    told = outcome.err.startswith(f"snapmig: {monitor.path}: QEMU ")
    outcome.fails(1, lines=1)
    assert told


def test_escape_sequences_of_a_monitor(fake: Callable[..., FakeMonitor]) -> None:
    """Words of a monitor are shown with their control characters as escapes."""
    monitor = fake(query_version=Refused("no\x1b[2J"))
    with pytest.raises(MonitorError, match=r"QEMU refused query-version: no\\x1b\[2J$"):
        touch(monitor.path)


@pytest.mark.parametrize("state", ["", "dreaming", "postcopy-active", "\x1b[2J"])
def test_unknown_migration_state(fake: Callable[..., FakeMonitor], state: str) -> None:
    """A state of a migration that nobody knows is an error at once, and the guest is let go."""
    monitor = fake()

    def migrate(_: Any) -> dict[str, str]:
        monitor.migration, monitor.status = state, "finish-migrate"
        return {}

    def cancel(_: Any) -> dict[str, str]:
        monitor.migration, monitor.status = "cancelled", "postmigrate"
        return {}

    monitor.answers |= {"migrate": migrate, "migrate_cancel": cancel}
    with pytest.raises(MonitorError, match=r"expected active, completed or failed$"):
        touch(monitor.path)
    assert (monitor.status, monitor.names.count("query-migrate") < 10) == ("running", True)


def test_migration_that_does_not_move(
    fake: Callable[..., FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that moves nothing for too long is given up, and the guest is let go."""
    monkeypatch.setitem(watch.STILL_S, "migrate", 0.05)
    monitor = fake()

    def migrate(_: Any) -> dict[str, str]:
        monitor.migration = "active"
        return {}

    monitor.answers |= {"migrate": migrate}
    with pytest.raises(MonitorError, match=r"is active and moved nothing in 0 s$"):
        touch(monitor.path)
    assert (monitor.migration, monitor.status) == ("cancelled", "running")


def test_migration_that_moves(
    fake: Callable[..., FakeMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that takes longer but moves something is waited for."""
    monkeypatch.setitem(watch.STILL_S, "migrate", 0.5)
    monitor = fake()
    numbers = iter(range(400))

    def query(_: Any) -> dict[str, Any]:
        if "migrate" not in monitor.names:
            return {}
        moved = next(numbers, None)
        if moved is None:
            return {"status": "completed"}
        return {"status": "active", "ram": {"transferred": moved, "remaining": 1}}

    monitor.answers |= {"query-migrate": query}
    touch(monitor.path)
    assert monitor.status == "running"
