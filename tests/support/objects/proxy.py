"""
A TCP proxy on loopback that passes bytes on, notes requests, and does what networks do.

What it does to connections is a rule, which sees every piece of bytes of both directions.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_REQUEST = re.compile(rb"(?:GET|PUT|POST|HEAD|DELETE) /\S* HTTP/1\.1\r\n")
_STEP = 65536


class CutError(Exception):
    """A rule ends a connection."""


@dataclass
class Connection:
    """
    A client's connection: bytes that passed since the last request began, and requests.

    :ivar answered: bytes of all answers
    """

    client: socket.socket
    server: socket.socket
    up: int = 0
    down: int = 0
    answered: int = 0
    requests: list[str] = field(default_factory=list)
    pumps: list[threading.Thread] = field(default_factory=list)
    running: int = 2
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """End it and wait until nobody uses it."""
        self.end()
        for pump in self.pumps:
            pump.join()

    def leave(self) -> None:
        """Close the sockets when both directions have come to their end."""
        with self.lock:
            self.running -= 1
            if self.running == 0:
                self.client.close()
                self.server.close()

    def end(self) -> None:
        """Close both sides at once."""
        for side in (self.client, self.server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


class Pass:
    """Lets everything pass."""

    def up(self, connection: Connection) -> None:
        """See that bytes are about to go to the server."""

    def down(self, connection: Connection) -> None:
        """See that bytes are about to go to the client."""


class CutDown(Pass):
    """Cuts answers after so many bytes, so many times."""

    def __init__(self, after: int, times: int) -> None:
        self.after, self.times, self.cuts = after, times, 0

    def down(self, connection: Connection) -> None:
        """Cut."""
        if connection.down > self.after and self.cuts < self.times:
            self.cuts += 1
            raise CutError


class CutUp(CutDown):
    """Cuts requests after so many bytes, so many times."""

    def down(self, connection: Connection) -> None:
        """Let it pass."""

    def up(self, connection: Connection) -> None:
        """Cut."""
        if connection.up > self.after and self.cuts < self.times:
            self.cuts += 1
            raise CutError


class Hold(Pass):
    """Holds requests that a pattern finds back until they are let go."""

    def __init__(self, pattern: str, after: int = 0) -> None:
        self.pattern, self.after = re.compile(pattern), after
        self.reached, self.go = threading.Event(), threading.Event()

    def up(self, connection: Connection) -> None:
        """Hold."""
        if self.pattern.match(connection.requests[-1]) and connection.up > self.after:
            self.reached.set()
            self.go.wait()


class Delay(Pass):
    """Holds the first bytes of each request back for a time, as a network far away does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen: dict[int, int] = {}

    def up(self, connection: Connection) -> None:
        """Wait."""
        number = len(connection.requests)
        if self._seen.get(id(connection)) != number:
            self._seen[id(connection)] = number
            time.sleep(self.seconds)


class LoseAnswer(Pass):
    """Has the server do what a pattern finds, once, and cuts its answer."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.cuts = re.compile(pattern), 0

    def down(self, connection: Connection) -> None:
        """Cut."""
        if not self.cuts and self.pattern.match(connection.requests[-1]):
            self.cuts += 1
            raise CutError


class SlowDown(Pass):
    """Answers requests that a pattern finds in the server's place, so many times: fewer, please."""

    ANSWER = b"HTTP/1.1 503 Slow Down\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    BODY = (
        b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    )

    def __init__(self, pattern: str, times: int) -> None:
        self.pattern, self.times, self.answered = re.compile(pattern), times, 0

    def up(self, connection: Connection) -> None:
        """Answer, and end the connection."""
        if self.answered < self.times and self.pattern.match(connection.requests[-1]):
            self.answered += 1
            with suppress(OSError):
                connection.client.sendall(self.ANSWER % (len(self.BODY), self.BODY))
            raise CutError


class Proxy:
    """
    Listens on a free port of loopback.

    :ivar requests: the first lines of all requests, without the version
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.rule: Pass = Pass()
        self.requests: list[str] = []
        self._connections: list[Connection] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def answered(self) -> int:
        """Bytes of all answers so far."""
        return sum(connection.answered for connection in self._connections)

    def close(self) -> None:
        """End all connections."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if isinstance(self.rule, Hold):
            self.rule.go.set()
        self._acceptor.join()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            connection = Connection(client, server)
            self._connections.append(connection)
            for pump in (self._up, self._down):
                thread = threading.Thread(target=pump, args=(connection,), daemon=True)
                connection.pumps.append(thread)
                thread.start()

    def _up(self, connection: Connection) -> None:
        with _ending(connection):
            while data := connection.client.recv(_STEP):
                for found in _REQUEST.findall(data):
                    line = found.decode().removesuffix(" HTTP/1.1\r\n")
                    connection.requests.append(line)
                    self.requests.append(line)
                    connection.up = connection.down = 0
                connection.up += len(data)
                self.rule.up(connection)
                connection.server.sendall(data)

    def _down(self, connection: Connection) -> None:
        with _ending(connection):
            while data := connection.server.recv(_STEP):
                connection.down += len(data)
                connection.answered += len(data)
                self.rule.down(connection)
                connection.client.sendall(data)


@contextmanager
def _ending(connection: Connection) -> Iterator[None]:
    with suppress(OSError, CutError):
        yield
    connection.end()
    connection.leave()
