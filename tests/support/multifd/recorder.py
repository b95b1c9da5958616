"""A proxy between a real source and a real destination that keeps what each connection carried."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


@dataclass
class Recorded:
    """One connection: the bytes of both directions."""

    forth: bytearray = field(default_factory=bytearray)
    back: bytearray = field(default_factory=bytearray)


class Recorder:
    """
    Listens at one socket and connects to another for each connection; a context manager.

    :ivar connections: in the order in which they were made
    :ivar ends: the connections closed by the source, and ``"word back"`` for each message of the
        return path, in order
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.target = path, target
        self.connections: list[Recorded] = []
        self.ends: list[int | str] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._server.bind(str(self.path))
        self._server.listen(16)
        self._start(self._accept)
        return self

    def __exit__(self, *_exc: object) -> None:
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in (self._server, *self._ends):
            end.close()

    @property
    def main(self) -> bytes:
        """The main channel's bytes."""
        return next(bytes(one.forth) for one in self.connections if one.forth[:4] == b"QEVM")

    @property
    def channels(self) -> list[bytes]:
        """The other channels' bytes."""
        return [bytes(one.forth) for one in self.connections if one.forth[:4] != b"QEVM"]

    def _start(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                source, _ = self._server.accept()
                target = socket.socket(socket.AF_UNIX)
                target.connect(str(self.target))
                self._ends += [source, target]
                number = len(self.connections)
                self.connections.append(Recorded())
                self._start(self._carry, source, target, self.connections[-1].forth, number)
                self._start(self._carry, target, source, self.connections[-1].back, "word back")

    def _carry(
        self, start: socket.socket, end: socket.socket, kept: bytearray, what: int | str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := start.recv(1 << 20):
                kept += data
                if isinstance(what, str):
                    self.ends.append(what)
                end.sendall(data)
        if isinstance(what, int):
            self.ends.append(what)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)
