"""Connections of a source: one channel in the process that sends on it, and the main one."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from snapmig.migration.packing import pack_pages, pack_sync
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError, WireCompression
from snapmig.system.signals import raise_if_cancelled

__all__ = ("ChannelSender", "MainSender")

STILL_S = 60
"""Seconds in which a destination takes nothing."""

_STEP = 1 << 18
_MOMENT_S = 0.02
_SHUT, _PONG, _LONGEST_MESSAGE = 1, 2, 512


class ChannelSender:
    """
    Sends packets on a channel that is open already.

    :param connection: a descriptor, which becomes its own, or a connection with TLS
    """

    def __init__(
        self, connection: int | SecureConnection, number: int, compression: WireCompression
    ) -> None:
        self._connection: socket.socket | SecureConnection
        if isinstance(connection, int):
            self._connection = socket.socket(fileno=connection)
        else:
            self._connection = connection
        self._connection.settimeout(STILL_S)
        self._name = f"channel {number}"
        self._compression = compression

    def send(self, block: bytes, offsets: npt.NDArray[np.int64], payload: Any) -> int:
        """
        Send pages of a block; return the number of bytes.

        :param payload: their contents, compressed as the channel's are
        :raises MigrationError: the destination has gone, or takes nothing
        """
        view = memoryview(payload).cast("B")
        head = pack_pages(block, offsets, len(view), self._compression)
        self._send(head, view)
        return len(head) + len(view)

    def sync(self, count: int) -> None:
        """
        Send barriers.

        :raises MigrationError: as :meth:`send`
        """
        self._send(pack_sync(self._compression) * count, memoryview(b""))

    def finish(self) -> None:
        """Say that nothing more comes: QEMU wants to hear it with TLS."""
        if isinstance(self._connection, SecureConnection):
            self._connection.end()

    def _send(self, head: bytes, payload: memoryview) -> None:
        try:
            sent = self._connection.sendmsg([head, payload])
            if sent < len(head):
                self._connection.sendall(head[sent:])
                sent = len(head)
            if rest := payload[sent - len(head) :]:  # QEMU may be gone that has all
                self._connection.sendall(rest)
        except TimeoutError:
            message = f"{self._name}: the destination took nothing in {STILL_S} s"
            raise MigrationError(message) from None
        except OSError as error:
            message = f"{self._name}: connection failed: {error.strerror}"
            raise MigrationError(message) from error


class MainSender:
    """
    The main connection of a source, with the destination's answers on it.

    :param connection: its first bytes are sent already
    :param take: called with the kind and body of each answer but the last
    :ivar loading: the destination has begun to load the stream
    :ivar status: the destination's last answer, 0 if it has everything; None before
    """

    def __init__(
        self,
        connection: socket.socket | SecureConnection,
        take: Callable[[int, bytes], object] = lambda _kind, _body: None,
    ) -> None:
        self._connection = connection
        self._take = take
        connection.setblocking(False)
        self._answers = bytearray()
        self.loading = False
        self.status: int | None = None

    def send(self, data: bytes, check: Callable[[], None] = lambda: None) -> None:
        """
        Send bytes, and take answers meanwhile.

        :param check: called several times a second; raises if the migration failed
        :raises MigrationError: the destination has gone, takes nothing, or refuses
        """
        left, moved = memoryview(data), time.monotonic()
        while left:
            self._wait(select.POLLOUT, check)
            sent = self.send_some(left)
            left = left[sent:]
            moved = time.monotonic() if sent else moved
            self.take_answers()
            if time.monotonic() - moved > STILL_S:
                raise MigrationError(f"the destination took nothing in {STILL_S} s")

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._connection.fileno()

    def send_some(self, data: memoryview) -> int:
        """
        Send what the connection takes at once, and return the number of bytes.

        :raises MigrationError: the destination has gone
        """
        try:
            return self._connection.send(data[:_STEP])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise MigrationError(f"main connection failed: {error.strerror}") from error

    def wait_for_loading(self, limit_s: float, check: Callable[[], None]) -> None:
        """
        Wait until the destination loads the stream, as its answer to the opening's ping says.

        :raises MigrationError: it closes the connection, or does not begin in time
        """
        deadline = time.monotonic() + limit_s
        while not self.loading:
            self._wait(select.POLLIN, check)
            if not self.take_answers() and not self.loading:
                raise MigrationError("the destination closed the connection before it loaded")
            if time.monotonic() > deadline:
                raise MigrationError(f"the destination did not begin to load in {limit_s:g} s")

    def wait_for_end(self, limit_s: float, check: Callable[[], None]) -> None:
        """
        Wait until the destination says that it has everything.

        :raises MigrationError: it refuses, says something else, or nothing in time
        """
        deadline = time.monotonic() + limit_s
        while self.status is None:
            self._wait(select.POLLIN, check)
            if not self.take_answers() and self.status is None:
                raise MigrationError("the destination closed the connection without an answer")
            if time.monotonic() > deadline:
                raise MigrationError(f"the destination did not answer in {limit_s:g} s")
        if self.status:
            raise MigrationError("the destination refused the guest")

    def _wait(self, event: int, check: Callable[[], None]) -> None:
        poll = select.poll()
        poll.register(self._connection, event)
        poll.poll(1000 * _MOMENT_S)
        raise_if_cancelled()
        check()

    def take_answers(self) -> bool:
        """
        Take the answers that have come; return False at the end of the connection.

        :raises MigrationError: the connection failed, or an answer is none of QEMU's
        """
        while True:
            try:
                data = self._connection.recv(1 << 12)
            except BlockingIOError:
                return True
            except OSError as error:
                raise MigrationError(f"main connection failed: {error.strerror}") from error
            if not data:
                return False
            self._answers += data
            self._read_answers()

    def _read_answers(self) -> None:
        while len(self._answers) >= 4:
            kind, length = struct.unpack_from(">HH", self._answers)
            if length > _LONGEST_MESSAGE or not 0 < kind < 8:
                raise MigrationError(
                    f"the destination answers with message {kind} of {length} bytes"
                )
            if len(self._answers) < 4 + length:
                return
            body = bytes(self._answers[4 : 4 + length])
            del self._answers[: 4 + length]
            if kind == _SHUT:
                self.status = int.from_bytes(body)
            elif kind == _PONG:
                self.loading = True
            else:
                self._take(kind, body)
