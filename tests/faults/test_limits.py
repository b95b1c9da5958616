"""Limits of processes, threads and memory: a sentence each, and never a traceback."""

import errno
import os
import resource
import sys
import threading

import pytest

from tests.support import program, ram
from tests.support.requirements import requires

THREADED = """
import os, resource, sys, threading, time
import multiprocess, numpy
import snapmig, snapmig.operations.save
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
limit = len(os.listdir("/proc/self/task")) + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
try:
    snapmig.save("a.ram", "a.snap", jobs=3)
except snapmig.SnapmigError as error:
    print(error.exit_code, error)
else:
    print("saved")
"""
"""A program with threads, so that a fork server makes its workers, and a limit for its children."""


@pytest.fixture
def place(shm, monkeypatch):
    """Give a working directory for a program, with an image."""
    monkeypatch.chdir(shm)
    ram.write(shm / "a.ram", ram.mixed(74 << 12))
    (shm / "jobs.toml").write_text('[[save]]\nimage = "a.ram"\nsnapshot = "b.snap"\n')
    return shm


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EAGAIN, "there may be no more processes and threads"),
        (errno.ENOMEM, "there is not enough memory"),
    ],
)
def test_a_worker_that_cant_be_forked(place, cli, monkeypatch, number, says):
    """The number of the worker and the reason are reported, and nothing is made."""

    def fork():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", fork)
    outcome = cli("save", "a.ram", "a.snap")

    outcome.fails(1, out="", start=f"snapmig: worker 0 of 1 can't be started: {says}")
    assert not (place / "a.snap").exists()


def test_a_thread_that_cant_be_started(place, cli, monkeypatch):
    """A batch needs threads, and reports the failure."""

    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    outcome = cli("batch", "jobs.toml")

    outcome.fails(1, start="snapmig: a thread can't be started: there may be no more", lines=1)
    assert not (place / "b.snap").exists()


@pytest.mark.root
@pytest.mark.parametrize("children", [1, 2, 4, 5])
def test_a_fork_server_under_a_limit(place, children):
    """
    Server, tracker and three workers are five, because workers have no threads of numpy's.

    With fewer, the end of neither the server nor the worker goes unexplained.
    """
    requires("setpriv")
    user = str(100_000 + 10 * os.getpid() + children)  # nobody else counts
    ram.write(place / "a.ram", ram.mixed(12 << 20))  # work for three
    os.chown(place, int(user), -1)
    os.chown(place / "a.ram", int(user), -1)
    powers = "+dac_read_search,+dac_override"  # the interpreter may be root's
    done = program.call(
        [
            *("setpriv", f"--reuid={user}", "--clear-groups", f"--inh-caps=-all,{powers}"),
            *(f"--ambient-caps={powers}", sys.executable, "-c", THREADED, str(children)),
        ],
        timeout=60,
    )

    done.ok(err=None)
    if children == 5:
        assert done.out == "saved\n"
        return
    assert done.out.startswith("1 worker ")
    assert "can't be started: there may be no more processes and threads (ulimit" in done.out


@pytest.mark.parametrize("mebibytes", [28, 60, 105, 120, 160])
@pytest.mark.parametrize("words", ["save -j2 a.ram a.snap", "batch jobs.toml", "info a.ram"])
def test_little_memory_is_a_sentence(place, words, mebibytes):
    """However little address space there is, the output has nothing but sentences."""
    size = mebibytes << 20

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    done = program.run(*words.split(), cwd=place, preexec_fn=limit)

    assert 0 <= done.code <= 4
    assert "Traceback" not in done.err
    assert "bug" not in done.err


@pytest.mark.parametrize(
    "words", [("save", "a.ram", "b"), ("restore", "a.snap", "b")], ids=" ".join
)
def test_a_limit_on_the_size_of_files(place, words):
    """A file that may not become as large is one sentence, and is not left behind."""
    program.run("save", "a.ram", "a.snap", cwd=place).ok()
    before = set(place.iterdir())
    limit = ["prlimit", f"--fsize={64 << 10}", sys.executable, "-m", "snapmig"]
    outcome = program.call([*limit, *words], cwd=place)

    outcome.fails(1, err="snapmig: b: File too large\n")
    assert set(place.iterdir()) == before
