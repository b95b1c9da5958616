"""The bytes of a connection that have arrived and are not parsed yet."""

from __future__ import annotations

import socket

from snapmig.migration.tls import SecureConnection

__all__ = ("Inbox", "IncompleteError")

_STEP = 1 << 20
_SIZE = 4 * _STEP


class IncompleteError(Exception):
    """The bytes needed have not arrived yet."""


class Inbox:
    """
    A buffer that keeps its memory: new memory for each part costs as much as receiving it.

    :param shown: display name of the source
    :ivar raw: the buffer; what is between ``start`` and ``end`` has not been parsed
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.raw = bytearray(_SIZE)
        self.start = 0
        self.end = 0

    def close(self) -> None:
        """Give the memory back."""
        self.raw, self.start, self.end = bytearray(), 0, 0

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def size(self) -> int:
        """Number of bytes from the start."""
        return len(self)

    def read(self, offset: int, length: int) -> bytes:
        """
        Return some bytes, which stay here.

        :param offset: from the start
        :raises IncompleteError: they have not arrived yet
        """
        if offset + length > len(self):
            raise IncompleteError
        first = self.start + offset
        return bytes(memoryview(self.raw)[first : first + length])

    def take(self, length: int) -> bytes:
        """Return bytes from the start, and remove them."""
        data = self.read(0, length)
        self.start += length
        return data

    def receive(self, connection: socket.socket | SecureConnection) -> int:
        """
        Take what has arrived, up to a limit; return the number of bytes, 0 at the end.

        :raises OSError: nothing has arrived, or the connection failed
        """
        if len(self.raw) - self.end < _STEP:
            self._make_room()
        count = connection.recv_into(memoryview(self.raw)[self.end : self.end + _STEP])
        self.end += count
        return count

    def _make_room(self) -> None:
        left = len(self)
        room = self.raw if left + _STEP <= len(self.raw) // 2 else bytearray(2 * (left + _SIZE))
        room[:left] = memoryview(self.raw)[self.start : self.end]
        self.raw, self.start, self.end = room, 0, left
