"""Child programs: one followed to its end, and one that outlives us."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ("Apart", "Ended", "run_child", "start_apart")

_POLL_S = 0.1
_STEP = 1 << 16
_LONGEST_LINE = 1 << 16
_KEPT_LINES = 20
_KEPT_OUTPUT = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """
    The end of a program.

    :param code: exit code, or minus the number of the signal that killed it
    :param output: its stdout, up to 1 MiB
    :param errors: the last lines of stderr not taken by the caller
    """

    code: int
    output: str
    errors: Sequence[str]


def run_child(
    arguments: Sequence[str],
    take: Callable[[str], bool],
    wanted: Callable[[], bool],
    *,
    grace_s: float,
) -> Ended:
    """
    Run a program to its end; may be called in any thread.

    It runs in a session of its own, so that passing on a terminal's Ctrl-C is left to us.

    :param take: called with each line of its stderr; returns True if it used the line
    :param wanted: called ten times a second; once it returns False, the program gets SIGTERM
    :param grace_s: seconds between SIGTERM and SIGKILL
    :raises OSError: it can't be started
    """
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            return _follow(process, take, wanted, grace_s)
        except BaseException:
            process.terminate()
            raise


class Apart:
    """A program started by :func:`start_apart`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, last_word: bytes, seconds: float) -> None:
        """
        Send a last word on its standard input, close that, and wait for its end.

        :param seconds: longest wait; 0 for none. The program is never killed.
        """
        try:
            if self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended already
                    os.write(self._process.stdin.fileno(), last_word)
                self._process.stdin.close()
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.returncode = 0  # not waited for any more; init does it after our end


def start_apart(arguments: Sequence[str], fds: Sequence[int], python: str = "") -> Apart:
    """
    Start a Python program that continues after our end, however we end.

    It runs in a session of its own, out of reach of the terminal's signals and of those for our
    process group. Of our files it keeps open only these, and a pipe that closes with us.

    :param fds: descriptors, passed on under the same numbers
    :param python: the interpreter; default: our own
    :raises OSError: it can't be started
    """
    # A new program instead of a fork: there may be other threads, and workers' mappings.
    process = subprocess.Popen(
        [python or sys.executable or "python3", "-I", "-S", "-B", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=fds,
        start_new_session=True,
        bufsize=0,
    )
    return Apart(process)


def _follow(
    process: subprocess.Popen[bytes],
    take: Callable[[str], bool],
    wanted: Callable[[], bool],
    grace_s: float,
) -> Ended:
    output, lines = _Output(), _Lines(take)
    deadline: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)  # type: ignore[arg-type]
        selector.register(process.stderr, selectors.EVENT_READ, lines)  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select(_POLL_S):
                data = os.read(key.fd, _STEP)
                key.data.add(data)
                if not data:
                    selector.unregister(key.fileobj)
            if deadline is None:
                if not wanted():
                    process.send_signal(signal.SIGTERM)
                    deadline = time.monotonic() + grace_s
            elif time.monotonic() > deadline:
                process.kill()
                deadline = float("inf")
    return Ended(process.wait(), output.text, list(lines.kept))


class _Output:
    def __init__(self) -> None:
        self._raw = bytearray()

    def add(self, data: bytes) -> None:
        self._raw += data[: _KEPT_OUTPUT - len(self._raw)]

    @property
    def text(self) -> str:
        return self._raw.decode("utf-8", "replace")


class _Lines:
    def __init__(self, take: Callable[[str], bool]) -> None:
        self._take = take
        self._rest = b""
        self.kept: deque[str] = deque(maxlen=_KEPT_LINES)

    def add(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE or not data:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            text = line[:_LONGEST_LINE].decode("utf-8", "replace")
            if text.strip() and not self._take(text):
                self.kept.append(text)
