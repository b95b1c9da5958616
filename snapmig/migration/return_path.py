"""
The return path: a destination's messages to the source, on the main connection.

QEMU's source is the specification: migration/savevm.c (commands), migration/migration.c (messages).
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from enum import IntEnum

from snapmig.migration.tls import SecureConnection

__all__ = ("OPENING", "Command", "Message", "ReturnPath", "command_problem")

_SEND_S = 5.0


OPENING = bytes.fromhex("08 0001 0000 08 0002 0004 00000001")
"""A source's commands to open the path, and to answer ping 1 on it."""


class Command(IntEnum):
    """Commands of the source."""

    OPEN_RETURN_PATH = 1
    PING = 2
    POSTCOPY_ADVISE = 3
    POSTCOPY_LISTEN = 4
    POSTCOPY_RUN = 5
    POSTCOPY_RAM_DISCARD = 6
    PACKAGED = 7
    ENABLE_COLO = 8
    POSTCOPY_RESUME = 9
    RECV_BITMAP = 10
    SWITCHOVER_START = 11


_SIZES = {Command.OPEN_RETURN_PATH: 0, Command.PING: 4, Command.SWITCHOVER_START: 0}
"""Bytes of data of the commands that are obeyed."""


class Message(IntEnum):
    """Messages of the destination."""

    SHUT = 1
    PONG = 2
    REQ_PAGES_ID = 3
    REQ_PAGES = 4
    RECV_BITMAP = 5
    RESUME_ACK = 6
    SWITCHOVER_ACK = 7


def command_problem(number: int, size: int) -> str | None:
    """
    Return the reason why a command can't be obeyed, None if it can.

    :param size: of its data, in bytes
    """
    try:
        command = Command(number)
    except ValueError:
        return f"stream has command {number}, which is not known here"
    if command in _SIZES:
        wanted = _SIZES[command]
        found = f"command {command.name} has {size} bytes, expected {wanted}"
        return None if size == wanted else found
    return f"stream has command {command.name}, expected a migration without postcopy"


class ReturnPath:
    """
    Messages to the source, if it listens.

    :ivar is_open: the source has opened the path, so it waits for the end
    """

    def __init__(self, connection: socket.socket | SecureConnection) -> None:
        self._connection = connection
        self.is_open = False

    def obey(self, command: Command, data: bytes) -> bool:
        """Answer a command; return True for one that belongs to the guest's state."""
        if command == Command.OPEN_RETURN_PATH:
            self.is_open = True
        elif command == Command.PING:
            self._send(Message.PONG, data[:4])
        return command == Command.SWITCHOVER_START

    def acknowledge_switchover(self) -> None:
        """Allow the source to stop the guest, if it asks for that with ``switchover-ack``."""
        self._send(Message.SWITCHOVER_ACK, b"")

    def finish(self, *, taken: bool) -> None:
        """
        End the migration.

        :param taken: True: the guest is on stable storage; False: the source keeps it
        """
        self._send(Message.SHUT, struct.pack(">I", not taken))

    def _send(self, kind: int, data: bytes) -> None:
        if self.is_open:
            # If the source has gone, its monitor gives the reason.
            with suppress(OSError):
                self._connection.settimeout(_SEND_S)
                try:
                    self._connection.sendall(struct.pack(">HH", kind, len(data)) + data)
                finally:
                    self._connection.setblocking(False)
