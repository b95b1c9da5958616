"""Facts about runs that are killed, interrupted, or two at a time."""

import os
import signal

import numpy as np
import pytest

from tests.support import program, ram
from tests.support.processes import alive, send, stopped_midway


@pytest.fixture
def big(place):
    """Give a place whose guest web is a second's work for two workers."""
    ram.write(place.folder / "web.ram", np.tile(ram.text(1024), (16, 1)))
    return place


def test_a_killed_run_leaves_no_snapshot_and_no_lock(big):
    """After SIGKILL the next run removes what is left, and saves."""
    with stopped_midway("backup", "run", big.config) as (process, workers):
        assert ".partial" in big.stored()[0]
        process.kill()
        process.wait(30)
        send(signal.SIGCONT, alive(workers))
        outcome = big.backup("run", "-v", "--lock-wait=30")

    outcome.ok("left by a killed run")
    assert [name[-5:] for name in big.stored()] == [".snap"]


def test_an_interrupted_run_leaves_nothing(big):
    """A signal ends a run with its exit code, and nothing is left but the lock file."""
    with stopped_midway("backup", "run", big.config) as (process, _):
        process.send_signal(signal.SIGTERM)
        outcome = program.end(process, timeout=30)

    (line,) = outcome.fails(143).err.splitlines()
    assert line.startswith(f"snapmig: interrupted by SIGTERM; the partial file of {big.folder}/")
    assert line.endswith(".snap was removed")
    assert big.stored() == []


def test_a_second_run_is_refused(big):
    """While one run saves a guest, another one says who that is, and touches nothing."""
    with stopped_midway("backup", "run", big.config) as (process, _):
        before = big.stored()
        outcome = big.backup("run")

        assert big.stored() == before
    # The number of snapmig's own process: the program was started through nice, which became it.
    outcome.fails(7, f"locked by process {process.pid} on {os.uname().nodename} since 20")


def test_a_second_run_waits(big):
    """With --lock-wait the second run saves when the first is done."""
    with stopped_midway("backup", "run", big.config) as (process, workers):
        second = program.start("backup", "run", "--lock-wait", 60, big.config)
        send(signal.SIGCONT, workers)
        outcomes = [program.end(run, timeout=60) for run in (process, second)]

    for outcome in outcomes:
        outcome.ok(out="")
    assert len(big.stored()) == 2


def test_a_locked_guest_does_not_stop_the_others(big):
    """The exit code says that a lock was not had, and the rest is saved."""
    big.configure(guests='[guests.db]\nsource = "db.ram"')
    with stopped_midway("backup", "run", big.config):
        outcome = big.backup("run")

    outcome.fails(7)
    assert len(big.stored("db")) == 1


def test_a_run_can_be_looked_at(big):
    """List, check and restore need no lock."""
    big.backup("run")
    with stopped_midway("backup", "run", big.config):
        big.backup("list").ok()
        big.backup("check").ok()
        big.backup("restore", "web", big.folder / "out").ok()
