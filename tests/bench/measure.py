"""Running one command and looking at it from outside: time, processor time, and sizes."""

import json
import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tests.bench.facts import ROOT

BLOCK = bytes(1 << 20)


class CommandError(Exception):
    """A measured command failed; the message says which and what it said."""


@dataclass(frozen=True)
class Timing:
    """
    The time of a run, in seconds.

    :param wall: from before the start of the process until it ended and its output was synced
    :param cpu: user and system time of the process and of the children that it waited for
    :param inner: what the run itself says: snapmig's own seconds, or the mean over the processes of
        a limit; None for other commands
    :param said: all that the run itself says, as a line of JSON
    """

    wall: float
    cpu: float
    inner: float | None = None
    said: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """A file's length and what it takes on its filesystem, in bytes."""

    length: int = 0
    disk: int = 0


def run_command(
    command: Sequence[str],
    *,
    output: Path | None = None,
    to_stdout: bool = False,
    sync: bool = True,
    cwd: Path,
) -> Timing:
    """
    Run a command and time it as a whole.

    :param output: the file that it writes
    :param to_stdout: its standard output is that file
    :param sync: sync the output inside the timed part
    :param cwd: where it runs; byte code of Python programs is kept there, as an installation does
    :raises CommandError: it ended with another exit status than 0
    """
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        stdout: BinaryIO = stack.enter_context(tempfile.TemporaryFile())
        started = time.monotonic()
        if to_stdout and output is not None:
            stdout = stack.enter_context(output.open("wb"))
        cpu = _wait(command, _start(command, cwd, stdout, log), log)
        if sync and output is not None:
            sync_file(output)
        wall = time.monotonic() - started
        said = {} if to_stdout else _said(stdout)
        return Timing(wall, cpu, said.get("seconds"), said)


def sync_file(path: Path) -> None:
    """Wait until a file is on stable storage."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sizes(path: Path) -> Sizes:
    """Length and disk use of a file."""
    facts = path.stat()
    return Sizes(facts.st_size, facts.st_blocks * 512)


@dataclass(frozen=True)
class Busy:
    """Processor seconds since the start of the machine: used by anyone, and taken by its host."""

    used: float
    stolen: float


def busy() -> Busy:
    """Read what all processors together have done so far; see proc(5)."""
    words = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    user, nice, system, _idle, _wait_io, irq, softirq, stolen = map(int, words)
    tick = os.sysconf("SC_CLK_TCK")
    return Busy((user + nice + system + irq + softirq) / tick, stolen / tick)


def settle(ready_bytes: int) -> None:
    """
    Write out what earlier runs left, and have free memory that needs no host.

    A virtual machine gives free memory back to its host, within seconds where free pages are
    reported; whoever takes such pages next waits for the host, seven times as long as for others.

    :param ready_bytes: how much free memory the next run takes
    """
    os.sync()
    length = min(ready_bytes, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE // 2)
    with os.fdopen(os.memfd_create("ready"), "wb", buffering=0) as memory:
        for _ in range(length // len(BLOCK)):
            memory.write(BLOCK)


def _start(
    command: Sequence[str], cwd: Path, stdout: BinaryIO, log: Any
) -> subprocess.Popen[bytes]:
    # The package of this checkout, whose commit stands in the facts, not one installed elsewhere.
    known = {"PYTHONPYCACHEPREFIX": str(cwd / "byte-code"), "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **known}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(command, stdout=stdout, stderr=log, cwd=cwd, env=environment)


def _wait(command: Sequence[str], process: subprocess.Popen[bytes], log: Any) -> float:
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        log.seek(0)
        words = log.read().decode(errors="replace").strip()
        raise CommandError(f"{command[0]}: exit status {process.returncode}: {words}")
    return usage.ru_utime + usage.ru_stime


def _said(stdout: BinaryIO) -> dict[str, Any]:
    stdout.seek(0)
    last = stdout.read().decode(errors="replace").strip().rpartition("\n")[2]
    return dict(json.loads(last)) if last.startswith("{") else {}
