"""
The guard's program: resume the guest if the snapmig that paused it is killed.

It is run by its path and imports nothing of snapmig, so it is small and starts in 15 ms. Its
standard input is a pipe from its parent: a byte means the guest was resumed; end of file without
one means nobody else will do it. It holds the parent's own connection to the monitor, because a
monitor takes one client at a time; the parent's commands are executed before those sent from here.
If that is a bridge to libvirt that has ended or lost libvirt, it starts another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

_LONGEST_S = 600.0
"""Longest wait in seconds for an unresponsive QEMU, or for the end of a migration."""

_POLL_S = 0.01
_SHORTEST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 16.0
_AT_REST = ("none", "completed", "failed", "cancelled")


def main(arguments: list[str]) -> int:
    """
    Wait for the parent's end, then resume its guest unless that was done.

    :param arguments: one string of JSON: ``parent``, a process id; ``monitor``, a descriptor;
        ``renewal``, null, or a program with its plan, to reach the monitor anew; ``resume``, true
        if the guest was running; ``undo``, commands with their arguments; ``stream``, a connection
        to be read to the end of its migration, or null to cancel that;
        ``private``, a path of a socket to remove together with its folder, empty for none
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    plan = json.loads(arguments[0])
    if not _is_left_alone(plan["parent"]):
        return 0
    _remove(plan["private"])
    if plan["stream"] is not None:
        stream = socket.socket(fileno=plan["stream"])
        threading.Thread(target=_read_to_end, args=(stream,), daemon=True).start()
    end, pause = time.monotonic() + _LONGEST_S, _SHORTEST_PAUSE_S
    connection = socket.socket(fileno=plan["monitor"])
    while True:
        with connection:
            try:
                _let_go(_Monitor(connection, end), plan)
                return 0
            except _Gone:
                return 1
            except OSError:
                if plan["renewal"] is None or time.monotonic() > end:
                    return 1  # QEMU has gone, or did not answer
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        connection = _renew(*plan["renewal"])


def _renew(python: str, program: str, plan: dict[str, Any]) -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        theirs.set_inheritable(True)
        words = ["-I", "-S", "-B", program, json.dumps({**plan, "monitor": fd})]
        os.posix_spawn(python, [python, *words], os.environ)
    return ours


def _is_left_alone(parent: int) -> bool:
    # Workers forked by the parent have the pipe's other end too, and may outlive it for a moment.
    poll = select.poll()
    poll.register(0, select.POLLIN)
    with contextlib.suppress(OSError):  # it has gone, or the kernel is older than 5.3
        poll.register(os.pidfd_open(parent), select.POLLIN)
    if os.getppid() == parent:
        poll.poll()
    os.set_blocking(0, False)
    try:
        return not os.read(0, 1)
    except BlockingIOError:
        return True


def _remove(path: str) -> None:
    # Our parent has done that itself unless it was killed before QEMU had connected. Without
    # pathlib, which takes as long to import as all the rest.
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))  # noqa: PTH106, PTH120


def _let_go(monitor: _Monitor, plan: dict[str, Any]) -> None:
    while _word(monitor, "query-migrate", "none") not in _AT_REST:
        if plan["stream"] is None:
            monitor.execute("migrate_cancel")
        time.sleep(_POLL_S)
    while plan["resume"] and _word(monitor, "query-status", "") in (
        "finish-migrate",
        "postmigrate",
    ):
        monitor.execute("cont")
        time.sleep(_POLL_S)
    if plan["resume"] and _word(monitor, "query-status", "") == "running":
        # QEMU 7.2 runs on after a migration that was cancelled in its last moment, but with its
        # disks still given away, and aborts at their next use. This takes them back.
        monitor.execute("cont")
    _wait_for_cleanup(monitor)
    for command, values in plan["undo"]:
        monitor.execute(command, values)


def _wait_for_cleanup(monitor: _Monitor) -> None:
    # QEMU reads its settings once more after a migration has ended: see settings.py.
    while isinstance(listed := monitor.execute("query-yank"), list):
        if {"type": "migration"} not in listed:
            return
        time.sleep(_POLL_S)


def _read_to_end(stream: socket.socket) -> None:
    # QEMU's monitor may stand still until it has been read, so it is done beside that.
    stream.setblocking(True)
    with contextlib.suppress(OSError):
        while stream.recv(1 << 20):
            pass


def _word(monitor: _Monitor, command: str, default: str) -> str:
    answer = monitor.execute(command)
    return str(answer.get("status", default)) if isinstance(answer, dict) else default


class _Gone(Exception):  # noqa: N818 - no fault
    """The domain has ended."""


def _raise_failure(answer: dict[str, Any]) -> None:
    # A bridge answers even if libvirt does not.
    if answer.get("absent"):
        raise _Gone
    error = answer.get("error")
    if isinstance(error, str) or (isinstance(error, dict) and error.get("class") == "LibvirtError"):
        raise ConnectionError


class _Monitor:
    def __init__(self, connection: socket.socket, end: float) -> None:
        self._connection = connection
        self._number = 0
        self._rest = b""
        self._end = end

    def execute(self, command: str, values: dict[str, Any] | None = None) -> Any:
        # The answer, None if the command was refused. Other messages are the parent's, or events.
        self._number += 1
        asked = {"execute": command, "arguments": values or {}, "id": f"guard-{self._number}"}
        self._connection.settimeout(self._left())
        self._connection.sendall(json.dumps(asked).encode() + b"\n")
        while True:
            with contextlib.suppress(ValueError):  # the rest of a line that the parent began
                answer = json.loads(self._line())
                if isinstance(answer, dict):
                    _raise_failure(answer)
                    if answer.get("id") == asked["id"]:
                        return answer.get("return")

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            self._connection.settimeout(self._left())
            data = self._connection.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
