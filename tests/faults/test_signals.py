"""Facts about interrupted runs: they report it, clean up, and leave no process behind."""

import os
import signal

import pytest

from tests.support import processes, program
from tests.support.processes import stopped_midway

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
VERBS = ["save", "restore", "verify"]


@pytest.fixture
def arguments(shm, big, big_snapshot):
    """Give the arguments of each verb for work of a second."""
    return {
        "save": ("save", big, shm / "s", "--level", 3),
        "restore": ("restore", big_snapshot, shm / "r"),
        "verify": ("verify", big_snapshot),
    }


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_ends_a_run(shm, arguments, verb, number):
    """A signal leaves an exit code and a message, but no file and no worker."""
    with stopped_midway(*arguments[verb]) as (process, workers):
        process.send_signal(number)
        outcome = program.end(process, timeout=30)

    outcome.fails(128 + number, out="", err=f"snapmig: interrupted by {number.name}\n")
    assert list(shm.iterdir()) == []
    assert processes.alive(workers) == []


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_to_the_whole_group_ends_a_run(shm, arguments, verb, number):
    """Ctrl-C, or the end of a terminal, reaches the workers too, and the outcome is the same."""
    with stopped_midway(*arguments[verb]) as (process, workers):
        processes.send(signal.SIGCONT, workers)
        os.killpg(process.pid, number)
        outcome = program.end(process, timeout=30)

    outcome.fails(128 + number, out="", err=f"snapmig: interrupted by {number.name}\n")
    assert list(shm.iterdir()) == []
    assert processes.alive(workers) == []


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_more_signals_do_not_disturb_the_clean_up(shm, arguments, second):
    """Signals that follow each other at once have the clean end of one of them."""
    with stopped_midway(*arguments["save"]) as (process, workers):
        process.send_signal(signal.SIGINT)
        for _ in range(20):
            processes.send(second, processes.alive([process.pid]))
        outcome = program.end(process, timeout=30)

    assert (outcome.code, outcome.err) in [
        (130, "snapmig: interrupted by SIGINT\n"),
        (128 + second, f"snapmig: interrupted by {second.name}\n"),
    ]
    assert (list(shm.iterdir()), processes.alive(workers)) == ([], [])


def test_signals_until_the_end_do_not_disturb_the_clean_up(shm, arguments):
    """Signals that go on until the process is gone change neither its end nor its exit code."""
    with stopped_midway(*arguments["save"]) as (process, workers):
        process.send_signal(signal.SIGTERM)
        processes.wait_for(lambda: len(processes.alive(workers)) < 2)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
        outcome = program.end(process, timeout=30)

    outcome.fails(143, err="snapmig: interrupted by SIGTERM\n")
    assert list(shm.iterdir()) == []


def test_an_interruption_is_a_line_of_json(arguments):
    """With --json the error is one JSON line."""
    with stopped_midway(*arguments["save"], "--json") as (process, _):
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)

    assert err == (
        '{"message_type": "error", "exit_code": 143, "message": "interrupted by SIGTERM"}\n'
    )


def test_an_interrupted_restore_in_place_says_what_it_left(own_big, big_snapshot):
    """An image being filled is partly restored, and the user is told."""
    with stopped_midway("restore", big_snapshot, own_big, "--in-place") as (process, _):
        process.send_signal(signal.SIGINT)
        outcome = program.end(process, timeout=30)

    outcome.fails(130, f"{own_big} is only partly restored")


def test_nohup_keeps_a_run_going(arguments):
    """An ignored SIGHUP stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_midway(*arguments["verify"]) as (process, workers):
            process.send_signal(signal.SIGHUP)
            processes.send(signal.SIGCONT, workers)
            outcome = program.end(process, timeout=60)
    finally:
        signal.signal(signal.SIGHUP, before)

    outcome.ok()


@pytest.mark.parametrize("verb", VERBS)
def test_workers_end_when_the_program_is_killed(shm, arguments, verb):
    """A killed program leaves no worker, and no file under the final name."""
    with stopped_midway(*arguments[verb]) as (process, workers):
        processes.send(signal.SIGCONT, workers)
        process.kill()
        process.wait(timeout=30)
        gone = processes.all_gone(workers)

    assert (gone, [path.name for path in shm.iterdir() if path.suffix != ".partial"]) == (True, [])
