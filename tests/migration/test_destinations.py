"""Facts about broken and hostile destinations: one sentence, nothing left, and an end."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapmig.migration import sender
from snapmig.operations.runs import sending
from tests.migration.sources import RAM, restore, save, send
from tests.migration.test_bad_sources import is_sentence
from tests.support import program
from tests.support.multifd.destination import (
    ANY_CHANNEL,
    CLOSE,
    HOLD,
    LEAVE,
    Deed,
    Destination,
    Manner,
)
from tests.support.multifd.dialects import QEMU_10
from tests.support.multifd.manners import FAULTS, FIRST_PACKET, STALLS
from tests.support.multifd.plan import usual
from tests.support.multifd.talk import MAIN
from tests.support.multifd.waiting import WaitingQemu
from tests.support.processes import all_gone, children, wait_for
from tests.support.sweep import sweep

STILL_S = 1
PREFIX = "snapmig: "
HELD = Manner((Deed(ANY_CHANNEL, FIRST_PACKET, HOLD),))
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FEW, MANY = (settings(max_examples=count, suppress_health_check=CHECKS) for count in (5, 25))

WORDS = {
    "nobody listens": "can't connect to unix:",
    "says type 8 at the end": "sends message 8 of 4 bytes, expected SHUT",
    "says another protocol early": "sends message 18516 of 21584 bytes, expected SHUT",
    "says PONG without an end early": "sends PONG of 65535 bytes, expected 4",
    "says PONG twice during pages": "sends PONG twice",
    "says SHUT without a number at the end": "sends SHUT of 0 bytes, expected 4",
    "says SHUT that is too long at the end": "sends SHUT of 8 bytes, expected 4",
    "says SWITCHOVER_ACK without an end early": "sends SWITCHOVER_ACK twice",
    "asks for pages": "sends REQ_PAGES_ID, though this is no postcopy",
    "asks for pages of no block at the end": "sends REQ_PAGES, though this is no postcopy",
    "asks to be sent a bitmap": "sends RECV_BITMAP, though this is no postcopy",
    "refuses at once": "refused the guest",
    "refuses and stalls": "refused the guest",
    "refuses and leaves": "refused the guest",
    "refuses at the end and leaves": "refused the guest",
    "refuses, then takes": "refused the guest",
    "has everything during pages": "said that it has everything before it was sent",
    "has everything before devices": "said that it has everything before it was sent",
    "leaves without a word": "closed the connection without an answer",
    "leaves in the middle of a word": "closed the connection without an answer",
    "floods with PONG": "sends PONG twice",
    "main: close 0 bytes after sections": "the destination closed the main connection",
    "main: leave 10 bytes after end": "",
    "a channel: close after 64 bytes": "connection failed",
    "a channel: leave after 2852 bytes": "",
}
"""Parts of the sentences."""

ESSENTIAL = (
    "nobody listens",
    "says type 8 at the end",
    "says PONG twice during pages",
    "says SHUT without a number at the end",
    "asks for pages of no block at the end",
    "refuses and stalls",
    "has everything before devices",
    "leaves in the middle of a word",
    "main: close 0 bytes after sections",
    "a channel: close after 64 bytes",
)
"""These are in ``make test``, the others in ``make test-more``."""

WAITS = {
    "reads nothing at all": "the destination took nothing in 1 s",
    "never answers": "the destination did not answer in 1 s",
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Give a snapshot of a guest with more pages than sockets hold."""
    return save(usual(1, 2), tmp_path_factory.mktemp("from") / "guest.snap")


@pytest.fixture(scope="module")
def places(snapshot):
    """Give the places on the main connection of that snapshot's migration."""
    with Destination() as destination:
        send(snapshot, destination)
        main, _ = destination.read
        return {"start": 0, "whole": len(destination.main), **main.places}


@pytest.fixture
def impatient(monkeypatch):
    """Have the source wait for a second at most."""
    monkeypatch.setattr(sender, "STILL_S", STILL_S)
    monkeypatch.setattr(sending, "STILL_S", STILL_S)
    monkeypatch.setattr(sending, "_END_S", float(STILL_S))


@pytest.fixture
def attempt(cli, snapshot, tmp_path):
    """Give a function that restores into a destination, which fails, and returns its sentence."""
    before = snapshot.read_bytes()

    def call(manner, **how):
        (tmp_path / "qmp").unlink(missing_ok=True)
        restored = restore(cli, snapshot, tmp_path, manner, **how)

        restored.outcome.fails(1, start=PREFIX, lines=1)
        assert not restored.ran
        assert restored.left_open == []
        assert restored.processes == []
        assert snapshot.read_bytes() == before
        words = restored.outcome.err.removeprefix(PREFIX).rstrip("\n")
        assert is_sentence(words)
        return words

    return call


@pytest.mark.parametrize("name", sweep(FAULTS, lambda name: name in ESSENTIAL))
def test_a_fault_is_an_error(attempt, places, name):
    """A destination that breaks off, errs or attacks."""
    assert WORDS.get(name, "") in attempt(FAULTS[name](places))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", sweep(STALLS, lambda name: name in WAITS))
def test_every_wait_has_an_end(attempt, places, name):
    """A destination that takes or says nothing, with all its connections open."""
    assert WAITS.get(name, "") in attempt(STALLS[name](places))


def test_the_faults_are_those_of_the_lists():
    """No name of a sentence is one that has gone."""
    assert set(ESSENTIAL) <= WORDS.keys() <= FAULTS.keys()
    assert WAITS.keys() <= STALLS.keys()


def test_qemus_own_reason_comes_first(attempt, places):
    """The monitor knows better why a connection ended."""
    manner = FAULTS["a channel: leave after 2852 bytes"](places)

    words = attempt(manner, reason="Sorry: no room")

    assert "QEMU could not migrate incoming: Sorry: no room" in words


@st.composite
def deaths(draw):
    """Draw an end of a connection at any place, as a share of what comes."""
    line = draw(st.sampled_from([MAIN, ANY_CHANNEL]))
    return line, draw(st.floats(0, 1, exclude_max=True)), draw(st.sampled_from([CLOSE, LEAVE]))


def check_death(attempt, places, death):
    """Have a connection end there."""
    line, share, kind = death
    whole = places["whole"] if line == MAIN else (1 << 19)
    attempt(Manner((Deed(line, int(share * whole), kind),)))


@FEW
@given(death=deaths())
def test_a_drawn_end_is_an_error(attempt, places, death):
    """Wherever it is, in a header, pages or devices."""
    check_death(attempt, places, death)


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@MANY
@given(death=deaths())
def test_many_drawn_ends_are_errors(attempt, places, death):
    """The same for more of them."""
    check_death(attempt, places, death)


@contextmanager
def held(snapshot, folder):
    """Start a restore in a process of its own that a destination holds up; give it with workers."""
    with (
        Destination(HELD) as destination,
        WaitingQemu(folder / "qmp", destination, [RAM], QEMU_10.machine) as qemu,
    ):
        process = program.start("restore", snapshot, f"qmp:{qemu.path}", "-j", 2)
        try:
            wait_for(lambda: any(len(raw) >= FIRST_PACKET for raw in destination.channels))
            workers = children(process.pid)
            yield process, workers
            assert all_gone(workers)
            wait_for(lambda: not destination.left_open)
            assert not qemu.ran
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(snapshot, tmp_path, number):
    """Though the destination takes nothing more."""
    with held(snapshot, tmp_path) as (process, _workers):
        process.send_signal(number)

        outcome = program.end(process, timeout=30)

    told = f"snapmig: interrupted by {number.name}; the migration was broken off\n"
    outcome.fails(128 + number, err=told)


def test_a_killed_worker_ends_it(snapshot, tmp_path):
    """Its channel is lost, and with it the migration."""
    with held(snapshot, tmp_path) as (process, workers):
        os.kill(workers[0], signal.SIGKILL)

        outcome = program.end(process, timeout=30)

    outcome.fails(5, "worker", "SIGKILL")


def test_settings_are_put_back(snapshot, tmp_path, cli, places):
    """Those of a QEMU whose migration has failed."""
    manner = FAULTS["a channel: leave after 2852 bytes"](places)
    restored = restore(cli, snapshot, tmp_path, manner)
    last = restored.settings[-1]

    assert ("multifd", False) in [(one["capability"], one["state"]) for one in last]
