"""Other programs: filters that a foreign image needs, and what users want run."""

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
"""What a program has for its own cleaning up between SIGTERM and SIGKILL."""
_LONGEST_SLEEP_S = 0.05
_PIECE = 1 << 20
_MAX_WORDS = 1 << 16


class FilterError(SnapmigError):
    """A program is missing or failed; the message has its own last words."""


class ProgramError(SnapmigError):
    """A program could not be started, failed, or took too long."""


def filter_pieces(arguments: list[str], source: int) -> Generator[bytes, None, None]:
    """
    Yield what a program makes of a descriptor's contents; the program ends with the iterator.

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
    Run a program to its end, with nothing to read, and what it prints on our standard error.

    It is in a process group of its own. Where it takes too long, or a signal has us leave, all of
    that group is ended: by SIGTERM, and by SIGKILL what is left after a moment.

    :param timeout: seconds
    :raises ProgramError: it can't be started, ended with another status than 0, or took too long
    """
    name = arguments[0]
    # Held, for it may be at work before we know its number: a signal then would leave it running.
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
    # Not subprocess, which can't give a child another mask of signals: ours may block what must
    # be able to end the child.
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
    # Whether a child ends in time; it stays a zombie, so that its number stays its own.
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
        with contextlib.suppress(OSError):  # it has left its group, or is another user's
            os.killpg(pid, number)
        ended = _ends(pid, _GRACE_S)
    if ended:
        os.waitpid(pid, 0)
