"""Facts about dying workers, and about images that change under them."""

import os
import signal

import pytest

import snapmig
from tests.support import processes, program, ram
from tests.support.processes import stopped_midway

VERBS = ["save", "restore", "verify"]


@pytest.fixture
def arguments(shm, big, big_snapshot):
    """Give the arguments of each verb for work of a second."""
    return {
        "save": ("save", big, shm / "s", "--level", 3),
        "restore": ("restore", big_snapshot, shm / "r"),
        "verify": ("verify", big_snapshot),
    }


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("verb", VERBS)
def test_a_killed_worker_ends_the_run(shm, arguments, verb, victim):
    """Exit code 5 and the signal's name; no file and no other worker is left."""
    with stopped_midway(*arguments[verb]) as (process, workers):
        processes.send(signal.SIGKILL, [workers[victim]])
        outcome = program.end(process, timeout=30)

    outcome.fails(5, f"snapmig: worker {victim} was ended by SIGKILL", out="")
    assert list(shm.iterdir()) == []
    assert processes.alive(workers) == []


@pytest.mark.parametrize("verb", VERBS)
def test_the_last_worker_that_is_killed_ends_the_run(arguments, verb):
    """With a single worker it is the same."""
    with stopped_midway(*arguments[verb], jobs=1) as (process, workers):
        processes.send(signal.SIGKILL, workers)
        outcome = program.end(process, timeout=30)

    outcome.fails(5, "worker 0 was ended by SIGKILL")


def test_a_killed_worker_of_a_packed_save_ends_the_run(shm, big):
    """Nobody waits for places after the dead worker's packets."""
    arguments = ("save", big, shm / "s", "--level", 3, "--layout", "packed")
    with stopped_midway(*arguments) as (process, workers):
        processes.send(signal.SIGKILL, workers[:1])
        processes.send(signal.SIGCONT, workers[1:])
        outcome = program.end(process, timeout=30)

    outcome.fails(5)
    assert list(shm.iterdir()) == []


def test_a_killed_worker_in_place_says_what_it_left(own_big, big_snapshot):
    """An image being filled is partly restored, and the user is told."""
    with stopped_midway("restore", big_snapshot, own_big, "--in-place") as (process, workers):
        processes.send(signal.SIGKILL, workers[:1])
        outcome = program.end(process, timeout=30)

    outcome.fails(5, f"{own_big} is only partly restored")


def test_an_image_that_shrinks_is_named(shm, own_big):
    """Workers die of SIGBUS if the image is truncated; the error says so and names the image."""
    with stopped_midway("save", own_big, shm / "s", "--level", 3) as (process, workers):
        os.truncate(own_big, 0)
        processes.send(signal.SIGCONT, workers)
        outcome = program.end(process, timeout=30)

    outcome.fails(
        5,
        "was ended by SIGBUS because the image changed under it",
        f"{own_big}: image had 134217728 bytes at the start, now 0",
    )
    assert list(shm.glob("*s*")) == []
    assert processes.alive(workers) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: _poke(path), "image was written to while it was read"),
        (lambda path: os.truncate(path, 134_217_728 + 4096), "now 134221824"),
    ],
    ids=["written", "grown"],
)
def test_an_image_that_changes_is_named(shm, own_big, change, words):
    """Saving an image written to meanwhile fails and leaves nothing."""
    with stopped_midway("save", own_big, shm / "s", "--level", 3) as (process, workers):
        change(own_big)
        processes.send(signal.SIGCONT, workers)
        outcome = program.end(process, timeout=60)

    outcome.fails(1, words, start=f"snapmig: {own_big}: image")
    assert list(shm.glob("*s*")) == []


def test_an_image_that_changes_is_an_error_of_its_class(shm):
    """The function raises ImageChangedError with the image's path."""
    path = ram.write(shm / "a", ram.mixed(16 << 20))

    with pytest.raises(snapmig.ImageChangedError) as caught:
        snapmig.save(path, shm / "s", progress=lambda _: os.utime(path, ns=(1, 1)))

    assert (caught.value.path, [file.name for file in shm.iterdir()]) == (str(path), ["a"])


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("packet_size", ["512K", "4M"])
def test_a_worker_takes_little_memory_to_save(shm, big, layout, packet_size):
    """Saving takes less than 64 MiB of private memory for each worker."""
    arguments = ("save", big, shm / "s", "--layout", layout, "--packet-size", packet_size)
    with processes.running(*arguments, "-j", 2) as process:
        assert 0 < processes.peak_private_bytes(process) < 64 << 20


@pytest.mark.parametrize("verb", ["restore", "verify"])
def test_a_worker_takes_little_memory_to_load(shm, big, verb):
    """Restoring and verifying packets of 4 MiB takes less than 64 MiB for each worker."""
    snapmig.save(big, shm / "s", packet_size="4M")
    arguments = {"restore": ("restore", shm / "s", shm / "r"), "verify": ("verify", shm / "s")}
    with processes.running(*arguments[verb], "-j", 2) as process:
        assert 0 < processes.peak_private_bytes(process) < 64 << 20


def test_a_worker_takes_little_memory_for_packets_with_zero_pages(shm):
    """Packets of 4 MiB that must be gathered take less than 64 MiB for each worker."""
    pages = ram.noise(24 << 10)
    pages[::7] = 0
    ram.write(shm / "a", pages)
    way = ("--layout", "packed", "--packet-size", "4M", "-j", 2)
    with processes.running("save", shm / "a", shm / "s", *way) as process:
        assert 0 < processes.peak_private_bytes(process) < 64 << 20


def _poke(path):
    with path.open("r+b") as file:
        file.write(b"changed")
