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

from snapmig.migration.packing import pack_hello, pack_pages, pack_sync
from snapmig.migration.wire import MigrationError, WireCompression
from snapmig.system.signals import raise_if_cancelled

__all__ = ("ChannelSender", "MainSender", "connect", "connect_channel")

STILL_S = 60
"""Seconds in which a destination takes nothing."""

_STEP = 1 << 18
_MOMENT_S = 0.02
_SHUT, _LONGEST_MESSAGE = 1, 512


def connect(path: str, first: bytes, limit_s: float = 10.0) -> socket.socket:
    """
    Connect to a UNIX socket, and send the first bytes at once: they tell what the connection is.

    :raises MigrationError: nobody listens there
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(limit_s)
        connection.connect(path)
        connection.sendall(first)
    except OSError as error:
        connection.close()
        message = f"the destination can't be connected to: {error.strerror or error}"
        raise MigrationError(message) from error
    return connection


def connect_channel(path: str, channel: int, uuid: bytes) -> socket.socket:
    """
    Connect a channel.

    :raises MigrationError: nobody listens there
    """
    return connect(path, pack_hello(channel, uuid))


class ChannelSender:
    """
    Sends packets on a channel that is open already.

    :param descriptor: of the connection, becomes its own
    """

    def __init__(self, descriptor: int, number: int, compression: WireCompression) -> None:
        self._connection = socket.socket(fileno=descriptor)
        self._connection.setblocking(True)
        limit = struct.pack("ll", STILL_S, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._number = number
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

    def _send(self, head: bytes, payload: memoryview) -> None:
        try:
            sent = self._connection.sendmsg([head, payload])
            if sent < len(head):
                self._connection.sendall(head[sent:])
                sent = len(head)
            self._connection.sendall(payload[sent - len(head) :])
        except BlockingIOError:
            message = f"channel {self._number}: the destination took nothing in {STILL_S} s"
            raise MigrationError(message) from None
        except OSError as error:
            message = f"channel {self._number}: connection failed: {error.strerror}"
            raise MigrationError(message) from error


class MainSender:
    """
    The main connection of a source, with the destination's answers on it.

    :param connection: its first bytes are sent already
    :param take: called with the kind and body of each answer but the last
    :ivar status: the destination's last answer, 0 if it has everything; None before
    """

    def __init__(
        self,
        connection: socket.socket,
        take: Callable[[int, bytes], object] = lambda _kind, _body: None,
    ) -> None:
        self._connection = connection
        self._take = take
        connection.setblocking(False)
        self._answers = bytearray()
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
            else:
                self._take(kind, body)
