"""
A private socket for QEMU to migrate into: one main connection, and one for each channel.

QEMU connects all of them to one address. The main connection starts with the magic of a stream, a
channel with that of multifd, and nothing orders them.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from snapmig.images.qemu.sections import MAGIC
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import (
    CHANNEL_MAGIC,
    HELLO_SIZE,
    MigrationError,
    unpack_hello,
)
from snapmig.system.private_folder import PrivateFolder
from snapmig.system.signals import raise_if_cancelled

__all__ = (
    "Connections",
    "PrivateSocket",
    "accept_all",
    "add_secure",
    "take_latecomers",
)

_MOMENT_S = 0.02
_BACKLOG = 256
_QUIET_S = 0.3
_LATEST_S = 3.0
_CHANNEL_START = CHANNEL_MAGIC.to_bytes(4)


class Connections(NamedTuple):
    """
    Connections of one migration.

    :param channels: by channel number, each after its first packet
    :param uuid: of the guest as said on the channels, 16 bytes; empty without channels
    """

    main: socket.socket | SecureConnection
    channels: tuple[socket.socket | SecureConnection, ...]
    uuid: bytes = b""

    def close(self) -> None:
        """Close all of them."""
        for connection in (self.main, *self.channels):
            connection.close()


class PrivateSocket(PrivateFolder):
    """A listening UNIX socket in such a folder."""

    def __init__(self, uid: int | None = None) -> None:
        super().__init__(uid)
        self.listener = socket.socket(socket.AF_UNIX)
        try:
            self.listener.bind(str(self.path))
            self.listener.listen(_BACKLOG)
            self.give(self.path)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """True before :meth:`close`."""
        return self.listener.fileno() >= 0

    def close(self) -> None:
        """Stop listening, and remove the folder."""
        self.listener.close()
        super().close()


def accept_all(
    listener: socket.socket,
    channels: int,
    limit_s: float,
    check: Callable[[], None] = lambda: None,
    *,
    peer: tuple[int, int] | None = None,
    cancel: Callable[[Sequence[socket.socket]], object] = lambda _: None,
) -> Connections:
    """
    Accept the main connection and all channels, in any order.

    :param check: called several times a second; raises if the migration failed
    :param peer: process and user id of the only process that may connect; 0 for an unknown process
    :param cancel: called if that fails, with the connections so far, before any is closed
    :raises MigrationError: a connection is of neither kind, or too many or too few come in time
    """
    arrivals = _Arrivals(channels)
    deadline = time.monotonic() + limit_s
    listener.setblocking(False)
    try:
        while not arrivals.complete:
            raise_if_cancelled()
            check()
            ended = arrivals.wait(listener)
            arrivals.accept_from(listener, peer)
            arrivals.sort(ended)
            if time.monotonic() > deadline:
                message = (
                    f"in {limit_s:g} s there came {arrivals.shown}, expected {arrivals.wanted}"
                )
                raise MigrationError(message)
        return arrivals.connections()
    except BaseException:
        cancel(arrivals.all)
        for connection in arrivals.all:
            connection.close()
        raise


def take_latecomers(listener: socket.socket) -> list[socket.socket]:
    """
    Return further connections, until none has come for a moment.

    A QEMU whose main connection ends while it opens channels may abort (7.2), or wait for ever
    (10.0), so a refusal comes when they are there.
    """
    found = []
    end = time.monotonic() + _LATEST_S
    while time.monotonic() < end and select.select([listener], [], [], _QUIET_S)[0]:
        with suppress(BlockingIOError):
            found.append(listener.accept()[0])
    return found


class _Arrivals:
    # Connections so far: those whose first bytes are known, and the others.
    def __init__(self, channels: int) -> None:
        self._count = channels
        self._main: socket.socket | None = None
        self._channels: dict[int, socket.socket] = {}
        self._uuid = b""
        self.unsorted: list[socket.socket] = []
        self._begun: set[socket.socket] = set()

    @property
    def complete(self) -> bool:
        return self._main is not None and len(self._channels) == self._count

    @property
    def wanted(self) -> str:
        return _shown(1, self._count)

    @property
    def shown(self) -> str:
        silent = f" and {len(self.unsorted)} that sent nothing" if self.unsorted else ""
        return _shown(int(self._main is not None), len(self._channels)) + silent

    def accept_from(self, listener: socket.socket, peer: tuple[int, int] | None) -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            if peer is None or _is(connection, peer):
                self.unsorted.append(connection)
            else:
                connection.close()
            known = len(self._channels) + (self._main is not None)
            if len(self.unsorted) + known > self._count + 1:
                message = f"more than {self._count + 1} connections came, expected {self.wanted}"
                self.unsorted += take_latecomers(listener)
                raise MigrationError(message)

    def wait(self, listener: socket.socket) -> set[int]:
        # Until something comes, or a moment. Returns descriptors of connections that have ended.
        # One with some bytes, too few to know it, stays readable: it is looked at every moment.
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        for each in self.unsorted:
            poll.register(each, select.POLLRDHUP | (0 if each in self._begun else select.POLLIN))
        events = poll.poll(1000 * _MOMENT_S)
        return {fd for fd, found in events if found & (select.POLLRDHUP | select.POLLHUP)}

    def sort(self, ended: set[int]) -> None:
        for connection in list(self.unsorted):
            try:
                start = connection.recv(HELLO_SIZE, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if not start:
                raise MigrationError("a connection ended before it sent anything")
            if len(start) >= len(MAGIC) and self._take(connection, start):
                self.unsorted.remove(connection)
                self._begun.discard(connection)
            elif connection.fileno() in ended:
                raise MigrationError(f"a connection ended after {len(start)} bytes")
            else:
                self._begun.add(connection)

    def _take(self, connection: socket.socket, start: bytes) -> bool:
        # True if the connection is known for what it is.
        if start.startswith(MAGIC):
            if self._main is not None:
                raise MigrationError("a second main connection came, expected one")
            self._main = connection
            return True
        if not start.startswith(_CHANNEL_START):
            message = f"a connection starts with {start[:4].hex()}, expected QEVM or 11223344"
            raise MigrationError(message)
        if len(start) < HELLO_SIZE:
            return False
        hello = unpack_hello(connection.recv(HELLO_SIZE), self._count)
        if hello.channel in self._channels:
            raise MigrationError(f"channel {hello.channel} was opened twice")
        if self._channels and hello.uuid != self._uuid:
            found, others = hello.uuid.hex(), self._uuid.hex()
            message = f"channel {hello.channel} has the UUID {found}, others {others}"
            raise MigrationError(message)
        self._uuid = hello.uuid
        self._channels[hello.channel] = connection
        return True

    def connections(self) -> Connections:
        if self._main is None:
            raise RuntimeError("incomplete")
        for connection in (self._main, *self._channels.values()):
            connection.setblocking(True)
        channels = tuple(self._channels[number] for number in range(self._count))
        return Connections(self._main, channels, self._uuid)

    @property
    def all(self) -> list[socket.socket]:
        main = [] if self._main is None else [self._main]
        return [*main, *self.unsorted, *self._channels.values()]


def add_secure(
    channels: dict[int, SecureConnection], connection: SecureConnection, count: int
) -> None:
    """
    Take a channel's first packet, and put the channel to the others.

    :param count: expected number of channels
    :raises MigrationError: the packet is impossible, or does not come
    """
    raw = b""
    while len(raw) < HELLO_SIZE:
        try:
            more = connection.recv(HELLO_SIZE - len(raw))
        except BlockingIOError:
            more = b""
        if not more:
            raise MigrationError(f"a connection ended after {len(raw)} bytes")
        raw += more
    hello = unpack_hello(raw, count)
    if hello.channel in channels:
        raise MigrationError(f"channel {hello.channel} was opened twice")
    channels[hello.channel] = connection


def _is(connection: socket.socket, peer: tuple[int, int]) -> bool:
    pid, uid, _gid = struct.unpack(
        "iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    return (pid in (0, peer[0]) or not peer[0]) and uid in (peer[1], 0)


def _shown(mains: int, channels: int) -> str:
    return f"{mains} main connection and {channels} channels"
