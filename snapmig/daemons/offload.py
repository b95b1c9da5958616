"""
Cloud Hypervisor's migration protocol on one host: memory as files, the rest as JSON.

A request is 16 bytes and its payload, an answer 16 bytes. See vm-migration/src/protocol.rs and
docs/snapshot_restore.md of Cloud Hypervisor.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from snapmig.daemons.peer import Peer
from snapmig.errors import SnapmigError

__all__ = ("FAULT_ROLE", "MAX_JSON_SIZE", "Command", "Connection", "Request", "connect")

MAX_JSON_SIZE = 64 << 20

FAULT_ROLE = struct.pack("<H", 2)
"""First bytes of a connection for page faults."""

_REQUEST = struct.Struct("<H6sQ")
_ANSWER = struct.Struct("<H6xQ")
_RANGE = struct.Struct("<QQ")
_SLOT = struct.Struct("<I")
_VERSIONS = (0,)
_OK, _ERROR = 1, 2
_STEP = 1 << 20
_PAUSE_S = 0.05


class Command(IntEnum):
    """Kinds of requests."""

    START = 1
    CONFIG = 2
    STATE = 3
    MEMORY = 4
    COMPLETE = 5
    ABANDON = 6
    MEMORY_FD = 7
    COMPLETE_PAUSED = 8
    PAGE_FAULT = 9


class Request(NamedTuple):
    """A request, without its payload of ``length`` bytes."""

    command: Command
    length: int


class Connection:
    """
    One connection; all errors are sentences.

    :param shown: its display name
    :param wait_s: longest wait for the next bytes, None for no limit
    """

    def __init__(self, connection: socket.socket, shown: str, wait_s: float | None) -> None:
        self._socket = connection
        self._shown = shown
        connection.settimeout(wait_s)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def end(self) -> None:
        """End it for both sides; whoever waits for bytes learns that."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def request(self) -> Request | None:
        """
        Return the next request, None at the end of the connection.

        :raises SnapmigError: none that is known
        """
        raw = self._read(_REQUEST.size, at_start=True)
        if not raw:
            return None
        number, headers, length = _REQUEST.unpack(raw)
        try:
            command = Command(number)
        except ValueError:
            raise self._error(f"sends a request of kind {number}") from None
        if command == Command.START and (version := headers[0] | headers[1] << 8) not in _VERSIONS:
            raise self._error(f"sends version {version} of its protocol, expected 0")
        return Request(command, length)

    def payload(self, request: Request, *, limit: int = MAX_JSON_SIZE) -> bytes:
        """
        Return a request's payload.

        :raises SnapmigError: it is too large, or cut off
        """
        if request.length > limit:
            name = request.command.name
            message = f"sends {request.length} bytes with {name}, expected at most {limit}"
            raise self._error(message)
        return self._read(request.length)

    def page_range(self, request: Request) -> tuple[int, int]:
        """Return the address and length that a page fault is about."""
        if request.length != _RANGE.size:
            message = f"sends {request.length} bytes with PAGE_FAULT, expected {_RANGE.size}"
            raise self._error(message)
        gpa, length = _RANGE.unpack(self._read(_RANGE.size))
        return gpa, length

    def memory_fd(self, request: Request) -> tuple[int, int]:
        """
        Return a slot's number and its descriptor, for the caller to close.

        :raises SnapmigError: there is none
        """
        if request.length != _SLOT.size:
            message = f"sends {request.length} bytes with MEMORY_FD, expected {_SLOT.size}"
            raise self._error(message)
        try:
            raw, fds, _, _ = socket.recv_fds(
                self._socket, _SLOT.size, 1, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL
            )
        except OSError as error:
            raise self._lost(error) from error
        if len(raw) != _SLOT.size or not fds:
            for fd in fds:
                os.close(fd)
            raise self._error("sends no descriptor of a memory slot")
        (slot,) = _SLOT.unpack(raw)
        return slot, fds[0]

    def answer(self, *, ok: bool) -> None:
        """
        Answer a request.

        :raises SnapmigError: nobody is there
        """
        self.write(_ANSWER.pack(_OK if ok else _ERROR, 0))

    def refuse(self) -> None:
        """Answer that something failed here, if there is anybody to hear it."""
        with suppress(SnapmigError):
            self.answer(ok=False)

    def send(self, command: Command, payload: bytes = b"") -> None:
        """
        Send a request and wait until it is done.

        :raises SnapmigError: it was refused
        """
        self.write(_REQUEST.pack(command, bytes(6), len(payload)) + payload)
        self._expect_done(command)

    def send_fd(self, slot: int, fd: int) -> None:
        """Hand over a slot's file, likewise."""
        self.write(_REQUEST.pack(Command.MEMORY_FD, bytes(6), _SLOT.size))
        try:
            socket.send_fds(self._socket, [_SLOT.pack(slot)], [fd])
        except OSError as error:
            raise self._lost(error) from error
        self._expect_done(Command.MEMORY_FD)

    def write(self, raw: bytes) -> None:
        """
        Send bytes.

        :raises SnapmigError: nobody is there
        """
        try:
            self._socket.sendall(raw)
        except OSError as error:
            raise self._lost(error) from error

    def _expect_done(self, command: Command) -> None:
        status, length = _ANSWER.unpack(self._read(_ANSWER.size))
        if status != _OK:
            reason = "its own messages have the reason"
            raise self._error(f"refuses {command.name}; {reason}")
        if length:
            raise self._error(f"answers {command.name} with {length} bytes, expected none")

    def _read(self, size: int, *, at_start: bool = False) -> bytes:
        # Taken in pieces: no memory is given for bytes that don't come.
        raw = bytearray()
        while len(raw) < size:
            try:
                piece = self._socket.recv(min(size - len(raw), _STEP))
            except OSError as error:
                raise self._lost(error) from error
            if not piece:
                if at_start and not raw:
                    return b""
                raise self._error("ends the connection early")
            raw += piece
        return bytes(raw)

    def _lost(self, error: OSError) -> SnapmigError:
        if isinstance(error, TimeoutError):
            return self._error(f"is silent for {self._socket.gettimeout():g} s")
        return self._error(f"is gone: {error.strerror or error}")

    def _error(self, what: str) -> SnapmigError:
        return SnapmigError(f"Cloud Hypervisor {what}", path=self._shown)


def connect(path: str, wait_s: float, allowed: frozenset[int]) -> socket.socket:
    """
    Return a connection to a socket, as soon as somebody listens there.

    :param allowed: uids that may listen there: they get all of the guest's memory
    :raises SnapmigError: nobody does in time, or another user
    """
    deadline = time.monotonic() + wait_s
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            Peer(connection, allowed).close()
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                message = f"can't connect: {error.strerror or error}"
                raise SnapmigError(message, path=path) from error
            time.sleep(_PAUSE_S)
        except BaseException:
            connection.close()
            raise
        else:
            return connection
