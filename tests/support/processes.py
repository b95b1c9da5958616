"""Processes as seen in /proc: children, their time and memory, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tests.support import program

Found = TypeVar("Found")

TRIES = 20
SOON_S = 60.0
"""More than any of these waits takes on a busy machine."""
_BUSY_TICKS = 2
_ENDS_WITH_US = """\
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def start_server(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """
    Start a process that must end with these tests, even if they are killed.

    The kernel kills it when the calling thread ends. A program in between arranges that, because a
    function called in the new process is not safe beside threads.
    """
    before = [sys.executable, "-I", "-S", "-c", _ENDS_WITH_US, str(os.getpid())]
    return subprocess.Popen([*before, *command], **options)


def caught(
    start: Callable[[], subprocess.Popen[str]], look: Callable[[subprocess.Popen[str]], bool]
) -> subprocess.Popen[str]:
    """
    Return a process in a moment seen by ``look``, started again if it ended before.

    On a busy machine a moment of milliseconds may pass between two looks.
    """
    for _ in range(TRIES):
        process = start()
        while process.poll() is None:
            if look(process):
                return process
            time.sleep(0.004)
        process.communicate()
    raise AssertionError(f"the moment was not seen in {TRIES} runs")


def wait_for(look: Callable[[], Found], seconds: float = SOON_S) -> Found:
    """Return the first true value of a function."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.004)
    return found


def children(pid: int) -> list[int]:
    """Return the child processes of a process; /proc/PID/task/*/children is not in every kernel."""
    found = []
    for number in numbers():
        with suppress(OSError):
            stat = Path(f"/proc/{number}/stat").read_text()
            _state, parent, *_rest = stat.rpartition(")")[2].split()
            if int(parent) == pid:
                found.append(number)
    return sorted(found)


def numbers() -> list[int]:
    """Return the processes of this moment; one that ends meanwhile stops a glob in /proc."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def state(pid: int) -> str:
    """Return the letter of a process's state, X if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def words(pid: int) -> list[bytes]:
    """Return the command line of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def open_files(pid: int) -> dict[str, str]:
    """Return what a process has open, by descriptor."""
    found = {}
    for item in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[item.name] = os.readlink(item)
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Return the processes still alive; a zombie is gone."""
    return [pid for pid in pids if state(pid) not in "XZ"]


def all_gone(pids: Iterable[int], seconds: float = SOON_S) -> bool:
    """Wait until processes are gone."""
    pids = list(pids)
    return wait_for(lambda: not alive(pids), seconds)


def cpu_ticks(pid: int) -> int:
    """Return the processor time of a process, in hundredths of a second."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0
    return sum(map(int, times))


def private_bytes(pid: int) -> int:
    """Return the anonymous memory of a process, 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def peak_private_bytes(process: subprocess.Popen[str]) -> int:
    """Return the highest anonymous memory of any one child while a process ran."""
    peak = 0
    while process.poll() is None:
        peak = max([peak, *map(private_bytes, children(process.pid))])
        time.sleep(0.005)
    return peak


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes that may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def stopped_midway(
    *arguments: object, jobs: int = 2, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """
    Run the program and stop its workers in the middle of their work.

    Each is stopped when it has worked: a run does not end while one has tasks, however few of them
    the others get to do meanwhile.
    """
    process = program.start(*arguments, "-j", jobs, **options)
    workers: list[int] = []

    def all_stopped() -> bool:
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        workers[:] = children(process.pid)
        send(signal.SIGSTOP, [pid for pid in workers if cpu_ticks(pid) >= _BUSY_TICKS])
        return len(workers) == jobs and all(state(pid) == "T" for pid in workers)

    try:
        wait_for(all_stopped)
        yield process, workers
    finally:
        send(signal.SIGCONT, alive(workers))
        process.kill()
        process.communicate(timeout=SOON_S)
        all_gone(workers)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the program, and end it if it is still there afterwards."""
    process = program.start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SOON_S)
