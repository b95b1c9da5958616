"""Send a talk to a receiver, each connection by a thread, and report what came back."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from dataclasses import dataclass, field

from tests.support.multifd import wire
from tests.support.multifd.talk import MAIN, SENT, Line, Step, Talk

PATIENCE_S = 20.0
_READ_S = 0.4
"""Time for a receiver to read what was sent before something that must come later."""
_POLL_S = 0.005


@dataclass
class Report:
    """
    The source's view of a migration.

    :param shut: the receiver's last word: 0 is success, None if none came
    :param pongs: numbers of answered pings
    :param failures: errors by connection
    :param unfinished: connections that had to be given up
    """

    shut: int | None = None
    pongs: list[int] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


def play(talk: Talk, address: str, *, patience: float = PATIENCE_S) -> Report:
    """
    Send a talk to ``unix:PATH`` or ``tcp:HOST:PORT``; return when all connections are closed.

    Connections that neither get on nor are closed by the receiver are given up.

    :param patience: seconds for the whole talk
    """
    return _Player(talk, address, patience).run()


def connect(address: str, patience: float = PATIENCE_S) -> socket.socket:
    """Connect to an address as soon as somebody listens there."""
    kind, _, rest = address.partition(":")
    end = time.monotonic() + patience
    while True:
        made = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        try:
            if kind == "unix":
                made.connect(rest)
            else:
                host, _, port = rest.rpartition(":")
                made.connect((host, int(port)))
            return made
        except (FileNotFoundError, ConnectionRefusedError):
            made.close()
            if time.monotonic() > end:
                raise
            time.sleep(_POLL_S)


class _Player:
    def __init__(self, talk: Talk, address: str, patience: float) -> None:
        self._talk, self._address = talk, address
        self._end = time.monotonic() + patience
        self._report = Report()
        self._sockets: dict[str, socket.socket] = {}
        self._gates: dict[str, threading.Event] = {}
        self._sent = {line.name: threading.Event() for line in talk.lines}
        self._over = threading.Event()
        self._answered = threading.Event()
        self._ended = threading.Event()

    def run(self) -> Report:
        for line in self._talk.lines:
            self._open(line)
        threads = [
            threading.Thread(target=self._drive, args=(line,), daemon=True)
            for line in self._talk.lines
            if line.name in self._sockets
        ]
        if MAIN in self._sockets:
            threads.append(threading.Thread(target=self._listen, daemon=True))
        for thread in threads:
            thread.start()
        self._wait_end()
        self._close_all()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a thread of the scripted source hangs"
        return self._report

    def _open(self, line: Line) -> None:
        try:
            self._sockets[line.name] = connect(self._address, self._left())
            if line.name != MAIN or self._talk.eager:
                self._sockets[line.name].settimeout(self._left())
                self._sockets[line.name].sendall(line.steps[0].data if line.steps else b"")
        except OSError as error:
            self._report.failures[line.name] = repr(error)
            self._sent[line.name].set()

    def _left(self) -> float:
        return max(_POLL_S, self._end - time.monotonic())

    def _drive(self, line: Line) -> None:
        first = 0 if line.name == MAIN and not self._talk.eager else 1
        try:
            for step in line.steps[first:]:
                if self._over.is_set():
                    return
                self._do(line.name, step)
        except TimeoutError:
            self._give_up(line.name)
        except OSError as error:
            if not self._over.is_set():
                self._report.failures[line.name] = repr(error)
        finally:
            self._sent[line.name].set()

    def _do(self, name: str, step: Step) -> None:
        end = self._sockets[name]
        if step.waits and not self._gate(step.waits).wait(self._left()):
            raise TimeoutError
        if step.kind == "stall":
            while not self._over.wait(_POLL_S) and not self._closed_by_peer(name):
                if self._left() <= _POLL_S:
                    raise TimeoutError
        elif step.kind == "close":
            _shut(end)
        elif step.kind == "die":
            self._over.set()
            self._close_all()
        else:
            end.settimeout(self._left())
            end.sendall(step.data)
        if step.opens:
            if not step.opens.startswith(SENT):
                _wait_read(end)
            self._gate(step.opens).set()

    def _gate(self, name: str) -> threading.Event:
        return self._gates.setdefault(name, threading.Event())

    def _wait_end(self) -> None:
        for name in self._sent:
            while not self._over.is_set() and not self._sent[name].wait(_POLL_S):
                if self._left() <= _POLL_S:
                    self._give_up(name)
                    self._over.set()
        waits = self._talk.return_path and MAIN in self._sockets and not self._report.failures
        if waits and not self._over.is_set() and not self._answered.wait(self._left()):
            self._give_up("return path")
        self._over.set()

    def _close_all(self) -> None:
        # As QEMU does: the channels first.
        for name in reversed(self._sockets):
            _shut(self._sockets[name])

    def _closed_by_peer(self, name: str) -> bool:
        if name == MAIN:
            return self._ended.is_set()
        end = self._sockets[name]
        try:
            return _readable(end) and end.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _give_up(self, name: str) -> None:
        if name not in self._report.unfinished:
            self._report.unfinished.append(name)

    def _listen(self) -> None:
        buffered = b""
        end = self._sockets[MAIN]
        try:
            while data := _receive(end):
                buffered += data
                while len(buffered) >= 4:
                    kind, length = struct.unpack(">HH", buffered[:4])
                    if len(buffered) < 4 + length:
                        break
                    self._heard(kind, buffered[4 : 4 + length])
                    buffered = buffered[4 + length :]
        except OSError as error:
            if not self._over.is_set():
                self._report.failures.setdefault(MAIN, repr(error))
        finally:
            self._ended.set()
            self._answered.set()

    def _heard(self, kind: int, data: bytes) -> None:
        value = int.from_bytes(data[:4])
        if kind == wire.PONG:
            self._report.pongs.append(value)
        elif kind == wire.SHUT:
            self._report.shut = value
            self._answered.set()


def _receive(end: socket.socket) -> bytes:
    while not _readable(end):
        time.sleep(_POLL_S)
    return end.recv(4096)


def _readable(end: socket.socket) -> bool:
    # Not by the socket's own time limit: that is one of the thread that sends.
    if end.fileno() < 0:
        raise OSError("closed by the end of the talk")
    return bool(select.select([end], [], [], 0)[0])


def _wait_read(end: socket.socket) -> None:
    limit = time.monotonic() + _READ_S
    while time.monotonic() < limit:
        unread = struct.unpack("i", fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)))[0]
        if not unread:
            return
        time.sleep(_POLL_S)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
