"""Facts about hundreds of runs, some of them killed, and about very large images."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import snapmig
from tests.support import processes, program, ram

ROUNDS = 25
AT_ONCE = 4
MEMORY = 512 << 20
KILLED = 0.3
"""The part of the runs of a soak that are killed."""


def _start(*words: object) -> subprocess.Popen[str]:
    return program.start(*words, "--jobs", 2)


def _disturb(runs: list[subprocess.Popen[str]], chance: random.Random) -> None:
    for run in runs:
        if chance.random() < KILLED:
            time.sleep(chance.random() / 4)
            victims = [run.pid, *processes.children(run.pid)]
            processes.send(signal.SIGKILL, [chance.choice(victims)])


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_a_soak_leaves_nothing(shm: Path) -> None:
    """After 200 saves and restores, four at once and many killed, the next runs clean up."""
    image = ram.write(shm / "image", ram.mixed(16 << 20))
    snapmig.save(image, shm / "whole.snap")
    chance, before = random.Random(7), _shared_memory()
    for _ in range(ROUNDS):
        saves = [_start("save", image, shm / f"{n}.snap", "--force") for n in range(AT_ONCE)]
        _disturb(saves, chance)
        for each in saves:
            program.end(each, timeout=60)
        loads = [
            _start("restore", shm / "whole.snap", shm / f"{n}.ram", "--force")
            for n in range(AT_ONCE)
        ]
        _disturb(loads, chance)
        for each in loads:
            program.end(each, timeout=60)
    for n in range(AT_ONCE):
        snapmig.save(image, shm / f"{n}.snap", force=True)
        assert snapmig.verify(shm / f"{n}.snap").ok
        snapmig.restore(shm / f"{n}.snap", shm / f"{n}.ram", force=True)
        assert (shm / f"{n}.ram").read_bytes() == image.read_bytes()

    kept = {"image", "whole.snap"} | {
        f"{n}.{end}" for n in range(AT_ONCE) for end in ("snap", "ram")
    }
    assert {path.name for path in shm.iterdir()} == kept
    processes.wait_for(lambda: _shared_memory() <= before)  # of tests beside this one, too
    assert _programs_on(shm) == []


def _shared_memory() -> set[str]:
    names = {path.name for path in Path("/dev/shm").iterdir()}
    return {name for name in names if not name.startswith(("snapmig-test-", "tmp"))}  # tests'


def _programs_on(folder: Path) -> list[str]:
    # Programs that name the folder: workers have the command line of their parents.
    found = []
    for number in processes.numbers():
        words = b" ".join(processes.words(number))
        if os.fsencode(folder) in words and number != os.getpid():
            found.append(words.decode("utf-8", "replace"))
    return found


MANY = """
import gc, os, resource, sys
import snapmig
def run(times):
    for _ in range(times):
        snapmig.save("image", "s.snap", jobs=2, force=True)
        snapmig.restore("s.snap", "r.ram", jobs=2, force=True)
    gc.collect()
    rss = int(open("/proc/self/statm").read().split()[1]) * 4096
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), rss
run(20)
first = run(10)
last = run(120)
print(first[0] == last[0], first[1] == last[1], last[2] - first[2])
"""


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_many_runs_in_one_process_do_not_grow(shm: Path) -> None:
    """Descriptors and threads are as many after 150 saves and restores, memory nearly as large."""
    ram.write(shm / "image", ram.mixed(4 << 20))
    done = program.call([sys.executable, "-c", MANY], cwd=shm)
    descriptors, threads, grown = done.out.split()

    assert (descriptors, threads) == ("True", "True")
    assert int(grown) < 8 << 20


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
"""


def _peak(*words: object, cwd: Path) -> int:
    """
    Run the program to its end; return the most memory that it, or a worker, had, in bytes.

    A small program starts it: Linux counts the memory of a program before `exec` too,
    and this one may be large by then.
    """
    command = [sys.executable, "-m", "snapmig", *map(str, words)]
    return int(program.call([sys.executable, "-c", PEAK, *command], cwd=cwd).out)


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_a_guest_of_256_gib_that_is_nearly_empty(shm: Path) -> None:
    """It is saved, verified and restored in 512 MiB of memory, its pages at their places."""
    image = shm / "image"
    size, step = 256 << 30, 997 << 20
    with image.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, step):
            file.seek(at)
            file.write(ram.text(1, at % 1000).tobytes())
    for words in (["save", "image", "s"], ["verify", "s"], ["restore", "s", "r"]):
        assert _peak(*words, cwd=shm) < MEMORY

    restored = shm / "r"
    assert restored.stat().st_size == size
    with restored.open("rb") as file:
        for at in range(0, size, step):
            file.seek(at)
            assert file.read(4096) == ram.text(1, at % 1000).tobytes()
    assert restored.stat().st_blocks * 512 < 16 << 20


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_half_a_million_holes(shm: Path) -> None:
    """An image of single pages between single holes is saved in bounded memory, and restored."""
    holes, page = 1 << 19, b"x" * 4096
    with (shm / "image").open("wb") as file:
        for at in range(holes):
            file.seek(at * 8192)
            file.write(page)
        file.truncate(holes * 8192)
    for words in (["save", "image", "s"], ["restore", "s", "r"]):
        assert _peak(*words, cwd=shm) < MEMORY

    assert subprocess.run(["cmp", shm / "image", shm / "r"], check=False).returncode == 0
