"""One multifd channel in the process that receives it."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.migration.payload import make_inflater
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import HEAD_SIZE, Blocks, MigrationError, PacketHead, RamPacket
from snapmig.pages import Bytes

__all__ = ("Channel", "Received")

STILL_S = 60
"""Seconds without a byte in the middle of a packet."""


class Received(NamedTuple):
    """
    A packet.

    :param sync: a barrier follows it
    :param data: RAM offsets of its target pages other than zero
    :param zeros: RAM offsets of its zero pages
    :param pages: contents of the first, as ``(n, bytes in a target page)``; valid until the next
        packet
    """

    sync: bool
    data: npt.NDArray[np.int64]
    zeros: npt.NDArray[np.int64]
    pages: Bytes


class Channel:
    """
    Reads packets from a connection that has sent its first packet already.

    :param connection: becomes the channel's own; a descriptor if it is without TLS
    :ivar ended: the source has closed the connection after a whole packet
    """

    def __init__(self, connection: int | SecureConnection, number: int, blocks: Blocks) -> None:
        if isinstance(connection, int):
            self._connection: Any = socket.socket(fileno=connection)
        else:
            self._connection = connection
        self._number = number
        self._blocks = blocks
        self.ended = False
        self._buffer: Bytes = np.empty(0, np.uint8)
        self._inflater = make_inflater()
        # A time limit of the kernel's, so that one call still takes a whole packet.
        self._connection.setblocking(True)
        limit = struct.pack("ll", STILL_S, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._buffered: Callable[[], int] = getattr(self._connection, "pending", lambda: 0)
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)

    def next(self, wait_s: float) -> Received | None:
        """
        Return the next packet, None if none begins in time, or ever.

        :raises MigrationError: it is impossible, or the connection ends or stands still inside it
        :raises UnsupportedError: it has something unknown here
        """
        if self.ended or not (self._buffered() or self._poll.poll(1000 * wait_s)):
            return None
        try:
            if not self._connection.recv(1, socket.MSG_PEEK):
                self.ended = True
                return None
            return self._read()
        except BlockingIOError:  # with TLS something may come that is no data
            return None
        except OSError as error:
            message = f"channel {self._number}: connection failed: {error.strerror}"
            raise MigrationError(message) from error
        except MigrationError as error:
            raise MigrationError(f"channel {self._number}: {error.message}") from error

    def _read(self) -> Received:
        head = PacketHead.unpack(bytes(self._fill(HEAD_SIZE)), self._blocks)
        packet = RamPacket.unpack(bytes(self._fill(head.rest)), head, self._blocks)
        raw = self._fill(packet.payload_size)
        page = self._blocks.target_page
        pages = self._inflater(head.compression, raw, len(packet.data) * page)
        return Received(head.sync, packet.data, packet.zeros, pages.reshape(-1, page))

    def _fill(self, length: int) -> Bytes:
        if length > len(self._buffer):
            self._buffer = np.empty(length, np.uint8)
        view = memoryview(self._buffer)[:length]  # type: ignore[arg-type]  # of numpy's stubs
        done = 0
        while done < length:
            try:
                count = self._connection.recv_into(view[done:], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                message = f"sent nothing in {STILL_S} s in the middle of a packet"
                raise MigrationError(message) from None
            if not count:
                raise MigrationError("connection ended too early")
            done += count
        return self._buffer[:length]
