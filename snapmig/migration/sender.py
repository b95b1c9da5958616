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

from snapmig.migration.compression import WireCompression
from snapmig.migration.packing import pack_pages, pack_sync
from snapmig.migration.return_path import Message
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.system.signals import raise_if_cancelled

__all__ = ("ChannelSender", "MainSender")

STILL_S = 60
"""Seconds in which a destination takes nothing."""

_STEP = 1 << 18
_MOMENT_S = 0.02
_REASON_S = 0.5
_NAMES: dict[int, str] = {each.value: each.name for each in Message}
_SIZES: dict[int, int] = {Message.SHUT: 4, Message.PONG: 4, Message.SWITCHOVER_ACK: 0}
"""Bytes of data of messages that a destination may send, each once."""
_OF_POSTCOPY = (Message.REQ_PAGES_ID, Message.REQ_PAGES, Message.RESUME_ACK)
_LONGEST_REQUEST = 8 + 4 + 1 + 255
_AT_ONCE = 16
"""Reads of 4 KiB in a row."""


class ChannelSender:
    """
    Sends packets on a channel that is open already.

    :param connection: a descriptor, which becomes its own, or a connection with TLS
    :param still_s: seconds in which the destination must take something
    """

    def __init__(
        self,
        connection: int | SecureConnection,
        number: int,
        compression: WireCompression,
        still_s: float = STILL_S,
    ) -> None:
        self._connection: socket.socket | SecureConnection
        if isinstance(connection, int):
            self._connection = socket.socket(fileno=connection)
        else:
            self._connection = connection
        self._connection.settimeout(still_s)
        self._name = f"channel {number}"
        self._compression = compression
        self._still_s = still_s

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
            if rest := payload[sent - len(head) :]:  # QEMU may be gone that has all
                self._connection.sendall(rest)
        except TimeoutError:
            message = f"{self._name}: the destination took nothing in {self._still_s:g} s"
            raise MigrationError(message) from None
        except OSError as error:
            message = f"{self._name}: connection failed: {error.strerror}"
            raise MigrationError(message) from error


class MainSender:
    """
    The main connection of a source, with the destination's answers on it.

    :param connection: its first bytes are sent already
    :param take: called with the kind and the data of each answer that only a postcopy migration
        has; None for other migrations
    :ivar status: the destination's last answer, 0 if it has everything; None before
    """

    def __init__(
        self,
        connection: socket.socket | SecureConnection,
        take: Callable[[int, bytes], object] | None = None,
    ) -> None:
        self._connection = connection
        self._take = take
        connection.setblocking(False)
        self._answers = bytearray()
        self._seen: set[int] = set()
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
            self.take_answers()  # those before the last bytes are sent come too early
            sent = self.send_some(left)
            left = left[sent:]
            moved = time.monotonic() if sent else moved
            if time.monotonic() - moved > STILL_S:
                raise MigrationError(f"the destination took nothing in {STILL_S} s")

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._connection.fileno()

    def send_some(self, data: memoryview) -> int:
        """
        Send what the connection takes at once, and return the number of bytes.

        :raises MigrationError: the destination has gone, or refuses
        """
        try:
            return self._connection.send(data[:_STEP])
        except BlockingIOError:
            return 0
        except OSError as error:
            self.explain()
            raise MigrationError(f"main connection failed: {error.strerror}") from error

    @property
    def loading(self) -> bool:
        """True if the destination has begun to load the stream."""
        return Message.PONG in self._seen

    def take_answers(self, *, is_sent: bool = False) -> None:
        """
        Take answers that are here.

        :param is_sent: the last bytes may be sent already
        :raises MigrationError: the destination refuses, says something else, or has gone
        """
        is_open = self._receive()
        self._check_taken() if is_sent else self._check_not_early()
        if not is_open:
            raise MigrationError("the destination closed the main connection")

    def explain(self) -> None:
        """
        Wait a moment for the reason of a failure that was noticed elsewhere.

        :raises MigrationError: the destination refuses, or says something else
        """
        end = time.monotonic() + _REASON_S
        while self.status is None and time.monotonic() < end and self._receive():
            self._wait(select.POLLIN, lambda: None)
        self._check_taken()

    def wait_for_loading(self, limit_s: float, check: Callable[[], None]) -> None:
        """
        Wait until the destination loads the stream, as its answer to the opening's ping says.

        :raises MigrationError: it closes the connection, or does not begin in time
        """
        deadline = time.monotonic() + limit_s
        while not self.loading:
            self._wait(select.POLLIN, check)
            is_open = self._receive()
            self._check_not_early()
            if not is_open and not self.loading:
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
            if not self._receive() and self.status is None:
                raise MigrationError("the destination closed the connection without an answer")
            if time.monotonic() > deadline:
                raise MigrationError(f"the destination did not answer in {limit_s:g} s")
        self._check_taken()

    def _check_not_early(self) -> None:
        self._check_taken()
        if self.status is not None:
            raise MigrationError("the destination said that it has everything before it was sent")

    def _check_taken(self) -> None:
        if self.status:
            raise MigrationError("the destination refused the guest")

    def _wait(self, event: int, check: Callable[[], None]) -> None:
        poll = select.poll()
        poll.register(self._connection, event)
        poll.poll(1000 * _MOMENT_S)
        raise_if_cancelled()
        check()

    def _receive(self) -> bool:
        # False at the end of the connection. Bounded, because requests for pages may be endless.
        for _ in range(_AT_ONCE):
            if self.status is not None:
                break
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
        return True

    def _read_answers(self) -> None:
        while len(self._answers) >= 4 and self.status is None:
            kind, length = struct.unpack_from(">HH", self._answers)
            self._check_message(kind, length)
            if len(self._answers) < 4 + length:
                return
            body = bytes(self._answers[4 : 4 + length])
            del self._answers[: 4 + length]
            self._seen.add(kind)
            if kind == Message.SHUT:
                self.status = int.from_bytes(body)
            elif self._take is not None and kind in _OF_POSTCOPY:
                self._take(kind, body)

    def _check_message(self, kind: int, length: int) -> None:
        # Each may come once, so that a destination can't keep us busy.
        name = _NAMES.get(kind, f"message {kind}")
        wanted = _SIZES.get(kind)
        if self._take is not None and kind in _OF_POSTCOPY and length <= _LONGEST_REQUEST:
            return
        if kind in _NAMES and wanted is None:
            message = f"the destination sends {name}, though this is no postcopy migration"
        elif length != wanted:
            expected = "SHUT" if wanted is None else f"{wanted}"
            message = f"the destination sends {name} of {length} bytes, expected {expected}"
        elif kind in self._seen:
            message = f"the destination sends {name} twice"
        else:
            return
        raise MigrationError(message)
