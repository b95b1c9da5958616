"""Facts about interrupted runs: they report it, clean up, and leave no process behind."""

import json
import os
import signal

import pytest

import snapmig
from snapmig.system.partial import PartialDirectory
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


def _told(folder, verb, number):
    # What is printed: where there was a file in the making, that it is gone.
    made = {"save": "s", "restore": "r"}
    gone = f"; the partial file of {folder / made[verb]} was removed" if verb in made else ""
    return f"snapmig: interrupted by {number.name}{gone}\n"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_ends_a_run(shm, arguments, verb, number):
    """A signal leaves an exit code and a message, but no file and no worker."""
    with stopped_midway(*arguments[verb]) as (process, workers):
        process.send_signal(number)
        outcome = program.end(process, timeout=30)

    outcome.fails(128 + number, out="", err=_told(shm, verb, number))
    assert list(shm.iterdir()) == []
    assert processes.alive(workers) == []


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_to_the_whole_group_ends_a_run(shm, arguments, verb, number):
    """Ctrl-C, or the end of a terminal, reaches the workers too, and the outcome is the same."""
    with stopped_midway(*arguments[verb]) as (process, workers):
        os.killpg(process.pid, number)
        processes.send(signal.SIGCONT, processes.alive(workers))  # the run might end before it
        outcome = program.end(process, timeout=30)

    outcome.fails(128 + number, out="", err=_told(shm, verb, number))
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
        (130, _told(shm, "save", signal.SIGINT)),
        (128 + second, _told(shm, "save", second)),
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

    outcome.fails(143, err=_told(shm, "save", signal.SIGTERM))
    assert list(shm.iterdir()) == []


def test_an_interruption_is_a_line_of_json(shm, arguments):
    """With --json the error is one JSON line."""
    with stopped_midway(*arguments["save"], "--json") as (process, _):
        process.send_signal(signal.SIGTERM)
        err = program.end(process, timeout=30).err

    message = _told(shm, "save", signal.SIGTERM).removeprefix("snapmig: ").rstrip()
    assert json.loads(err) == {"message_type": "error", "exit_code": 143, "message": message}


def test_an_interrupted_replacement_says_that_the_old_file_stays(shm, big):
    """Of a snapshot to be replaced nothing is lost."""
    old = shm / "old.snap"
    old.write_bytes(b"old")
    with stopped_midway("save", "-f", big, old, "--level", 3) as (process, _):
        process.send_signal(signal.SIGINT)
        outcome = program.end(process, timeout=30)

    outcome.fails(
        130,
        err="snapmig: interrupted by SIGINT; "
        f"the partial file of {old} was removed, old.snap is as it was\n",
    )
    assert old.read_bytes() == b"old"


def test_an_interrupted_share_says_that_others_stay(shm, big):
    """The share is saved again, from its start."""
    with stopped_midway("save", "--share", "1/2", big, shm / "s", "--level", 3) as (process, _):
        process.send_signal(signal.SIGINT)
        outcome = program.end(process, timeout=30)

    outcome.fails(
        130,
        err="snapmig: interrupted by SIGINT; share 1/2 is to be saved again, the others are kept\n",
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


def _stop(_progress):
    raise KeyboardInterrupt


def test_an_interrupted_commit_says_that_the_shares_stay(shm, big):
    """They can be committed again."""
    for share in ("1/2", "2/2"):
        snapmig.save(big, shm / "s", share=share, jobs=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        snapmig.commit(shm / "s", progress=_stop)

    assert caught.value.__notes__ == ["the shares are kept"]
    assert snapmig.commit(shm / "s").shares == 2


def test_an_interrupted_directory_is_removed(shm):
    """As is said, where an image is a directory."""
    with pytest.raises(KeyboardInterrupt) as caught, PartialDirectory(shm / "image"):
        _stop(None)

    words = f"the partial directory of {shm / 'image'} was removed"
    assert (caught.value.__notes__, [*shm.iterdir()]) == ([words], [])


def test_a_failure_is_not_remarked(shm):
    """It says itself what happened."""
    with pytest.raises(ValueError, match="of ours") as caught, PartialDirectory(shm / "image"):
        raise ValueError("of ours")

    assert not hasattr(caught.value, "__notes__")


def test_an_interruption_of_a_batch_names_what_is_partly_restored(shm, own_big, big_snapshot):
    """The summary counts jobs, and names images filled in place."""
    job = f'[[restore]]\nsnapshot = "{big_snapshot}"\nimage = "{own_big}"\nin_place = true\n'
    (shm / "jobs.toml").write_text(job)
    with stopped_midway("batch", shm / "jobs.toml") as (process, workers):
        process.send_signal(signal.SIGINT)
        processes.send(signal.SIGCONT, workers)
        outcome = program.end(process, timeout=60)

    outcome.fails(130, f"0 of 1 job done; big: {own_big} is only partly restored now")
