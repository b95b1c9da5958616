"""Other programs: decompressors for foreign images, and programs given by the user."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping

from snapmig.errors import SnapmigError
from snapmig.system.signals import HeldSignals

__all__ = ("FilterError", "ProgramError", "filter_pieces", "run_program")

_GRACE_S = 5.0
"""Seconds left to a program for cleaning up, between SIGTERM and SIGKILL."""
_LONGEST_SLEEP_S = 0.05
_PIECE = 1 << 20
_MAX_WORDS = 1 << 16


class FilterError(SnapmigError):
    """A program is missing or failed; the message ends with its last line of stderr."""


class ProgramError(SnapmigError):
    """A program could not be started, failed, or took too long."""


def filter_pieces(arguments: list[str], source: int) -> Generator[bytes, None, None]:
    """
    Yield a program's output for a descriptor as its input; the program ends with the iterator.

    :raises FilterError: it is not installed, or it failed
    """
    with tempfile.TemporaryFile() as words:
        try:
            program = subprocess.Popen(
                arguments, stdin=source, stdout=subprocess.PIPE, stderr=words, bufsize=0
            )
        except FileNotFoundError as error:
            raise FilterError(f"{arguments[0]} is needed for this and not installed") from error
        assert program.stdout is not None
        try:
            while piece := program.stdout.read(_PIECE):
                yield piece
            code = program.wait()
        finally:
            program.kill()
            program.wait()
            program.stdout.close()
        if code != 0:
            words.seek(0)
            said = words.read(_MAX_WORDS).decode("utf-8", "replace").strip().splitlines()[-1:]
            raise FilterError(
                f"{arguments[0]} failed: {said[0] if said else f'exit status {code}'}"
            )


def run_program(arguments: list[str], environment: Mapping[str, str], timeout: float) -> None:
    """
    Run a program to its end, with empty input and with its output on our standard error.

    It runs in a process group of its own. If it takes too long, or a signal ends us, the whole
    group gets SIGTERM, and after a moment SIGKILL.

    :param timeout: in seconds
    :raises ProgramError: it can't be started, ended with a status other than 0, or took too long
    """
    name = arguments[0]
    # Held, because it may run before we know its pid: a signal then would leave it running.
    with HeldSignals() as held:
        try:
            pid = _spawn(arguments, environment)
        except OSError as error:
            raise ProgramError(f"{name} can't be started: {error.strerror}") from error
        try:
            with held.let_in():
                ended = _ends(pid, timeout)
            if not ended:
                raise ProgramError(f"{name} took longer than {timeout:g} s")
        except BaseException:
            _end(pid)
            raise
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        raise ProgramError(f"{name} was ended by {signal.Signals(-code).name}")
    if code > 0:
        raise ProgramError(f"{name} failed: exit status {code}")


def _spawn(arguments: list[str], environment: Mapping[str, str]) -> int:
    # Not subprocess, because that can't set a child's signal mask: ours may block the very signals
    # needed to end the child.
    return os.posix_spawnp(
        arguments[0],
        arguments,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
        ],
        setpgroup=0,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
    )


def _ends(pid: int, timeout: float) -> bool:
    # Wait for a child. It stays a zombie, so that its pid can't be reused.
    end, pause = time.monotonic() + timeout, 0.001
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_SLEEP_S)
    return True


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):  # it left its group, or runs as another user
            os.killpg(pid, number)
        ended = _ends(pid, _GRACE_S)
    if ended:
        os.waitpid(pid, 0)
