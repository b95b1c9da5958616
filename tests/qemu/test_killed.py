"""Facts about guests whose snapmig is killed, or whose QEMU hangs, while they are saved."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import snapmig
from tests.support import program as snapmig_program
from tests.support.guests.qemu import CUT_OFF, Guest
from tests.support.guests.resume import Memory, Monitored, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.outcome import Outcome
from tests.support.processes import caught, children, wait_for, words
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

LARGE = Layout(ram=128 << 20)
"""It stands still for long enough to be met there."""
KINDS = {
    "shared": lambda folder: file_memory(folder / "ram", LARGE),
    "anonymous": lambda _: Memory([f"memory-backend-ram,id=ram,size={LARGE.ram}"]),
}
MOMENTS = 4


@pytest.fixture(scope="module", params=KINDS)
def guest(request: pytest.FixtureRequest, program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a large guest that writes to all of its memory all the time, of each kind."""
    folder = shared_shm / request.param
    folder.mkdir()
    with make_monitored(program, folder, KINDS[request.param](folder), LARGE) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 1)
        yield guest


def status(guest: Guest) -> str:
    """Return the run state of a guest."""
    return str(guest.execute("query-status")["status"])


def settings(guest: Guest) -> object:
    """Return QEMU's settings for migrations."""
    found = guest.execute("query-migrate-parameters")
    return guest.execute("query-migrate-capabilities"), found


def is_free(guest: Monitored) -> bool:
    """Return True if the monitor greets a new client."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)  # QEMU greets in turn: leaving early only adds to the queue before us
        try:
            client.connect(guest.monitor.removeprefix("qmp:"))
            return client.recv(1) != b""
        except OSError:
            return False


@contextmanager
def saving(
    guest: Monitored,
    folder: Path,
    *options: object,
    until: Callable[[subprocess.Popen[str]], bool] = lambda _: True,
) -> Iterator[subprocess.Popen[str]]:
    """Save a guest in a process, up to some moment; killed at the end with its group."""
    arguments = ("save", guest.monitor, folder / "snap", "-f", *options)
    process = caught(lambda: snapmig_program.start(*arguments), until)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and all its children, except those in sessions of their own."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stands_still(guest: Guest) -> bool:
    """Return True if a guest is paused for a migration."""
    return status(guest) in ("finish-migrate", "postmigrate")


long_pause = pytest.mark.parametrize("guest", ["shared"], indirect=True)
"""Guests whose RAM snapmig reads in the pause; a QEMU that writes it itself answers nothing."""
SLOW = ("-j", 2, "--bwlimit", "8M")
"""So that the pause is not over before who saw it does something."""


def is_guarded(process: subprocess.Popen[str]) -> bool:
    """Return True if a process has started its guard, just before the pause."""
    return any(b"guard_process" in b"".join(words(child)) for child in children(process.pid))


def test_killed_when_the_pause_begins(guest: Monitored, shm: Path) -> None:
    """A guest whose snapmig is killed at the start of its pause runs on."""
    with saving(guest, shm, "-j", 2, until=is_guarded) as process:
        kill_group(process)
    wait_for(lambda: is_free(guest))
    assert status(guest) == "running"


@long_pause
def test_killed_in_the_pause(guest: Monitored, shm: Path) -> None:
    """A guest whose snapmig is killed with its group in the pause runs on, with QEMU's settings."""
    before = settings(guest)
    with saving(guest, shm, *SLOW, until=lambda _: stands_still(guest)) as process:
        kill_group(process)
    wait_for(lambda: is_free(guest))
    assert (status(guest), settings(guest) == before) == ("running", True)


@pytest.mark.parametrize("seed", sweep(range(12), lambda seed: seed == 0))
def test_killed_at_any_moment(guest: Monitored, shm: Path, seed: int) -> None:
    """Whenever snapmig is killed, its guest runs on, and can be saved."""
    moments = random.Random(seed)
    started = time.monotonic()
    snapmig.save(guest.monitor, shm / "snap", jobs=2)
    whole = time.monotonic() - started + 0.3
    for _ in range(MOMENTS):
        with saving(guest, shm, "-j", 2) as process:
            time.sleep(moments.uniform(0, whole))
            kill_group(process)
        wait_for(lambda: is_free(guest))
        assert status(guest) == "running"
    snapmig.save(guest.monitor, shm / "last", jobs=2)
    assert snapmig.verify(shm / "last").problems == ()


@long_pause
def test_killed_together_with_its_guard(
    guest: Monitored, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """A guest left paused is refused with a remedy, and saved after applying it."""
    with saving(guest, shm, *SLOW, until=lambda _: stands_still(guest)) as process:
        process.send_signal(signal.SIGSTOP)  # else it lets the guest go when it loses a worker
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        kill_group(process)
    wait_for(lambda: status(guest) == "postmigrate")
    refused = cli("save", guest.monitor, shm / "snap", "-f")
    refused.fails(1, "send the monitor cont")
    guest.cont()
    cli("save", guest.monitor, shm / "snap", "-f", "-j", 2).ok(err=None)


@long_pause
def test_qemu_that_stands_still(guest: Monitored, shm: Path) -> None:
    """An unresponsive QEMU is an error in time, and its guest runs on when it wakes up."""
    options = (*SLOW, "--monitor-timeout", 2)
    with saving(guest, shm, *options, until=lambda _: stands_still(guest)) as process:
        os.kill(guest.pid, signal.SIGSTOP)
        try:
            outcome = snapmig_program.end(process, timeout=60)
        finally:
            os.kill(guest.pid, signal.SIGCONT)
    outcome.fails(1, "QEMU did not answer")
    wait_for(lambda: is_free(guest))
    assert status(guest) == "running"


def test_monitor_that_somebody_holds(
    guest: Monitored, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """A monitor with another client is an error of one sentence, and works once that has left."""
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(guest.monitor.removeprefix("qmp:"))
        other.recv(1)
        refused = cli("save", "--monitor-timeout", "0.5", guest.monitor, shm / "snap")
    said = "no QEMU monitor answers here in 0.5 s: somebody else may hold it"
    refused.fails(1, said, lines=1)
    cli("save", guest.monitor, shm / "snap", "-j", 2).ok(err=None)


@pytest.mark.qemu("10.0")  # QEMU 7.2 ends in postmigrate when it had given its state already
def test_killed_beside_a_guest_that_stays_stopped(guest: Monitored, shm: Path) -> None:
    """A guest stopped by its owner is unchanged when snapmig is killed, and can be saved."""
    guest.stop()
    try:
        for moment in (0.3, 0.5, 0.7):  # about the time QEMU is asked
            with saving(guest, shm, "-j", 2) as process:
                time.sleep(moment)
                kill_group(process)
            wait_for(lambda: is_free(guest))
            assert status(guest) == "paused"
        snapmig.save(guest.monitor, shm / "last", jobs=2)
    finally:
        guest.cont()
