"""Addresses at which a migration is awaited: a UNIX socket, or TCP, with TLS unless local."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import SnapmigError, UsageError
from snapmig.migration.connections import Connections, accept_all
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.system.signals import raise_if_cancelled

__all__ = (
    "Address",
    "accept_plain",
    "accept_secure",
    "check_no_more",
    "listening",
    "parse_address",
)

_BACKLOG = 256
_MOMENT_S = 0.05
_HANDSHAKE_S = 20.0


class Address(NamedTuple):
    """
    A place to listen at.

    :param path: of a UNIX socket; empty for TCP
    """

    path: str
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """True if only this host can connect."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback


def parse_address(text: str) -> Address:
    """
    Return an address.

    :param text: ``unix:PATH`` or ``tcp:ADDRESS:PORT``
    :raises UsageError: it is neither
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest and "\0" not in rest:
        return Address(rest)
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and host and port.isascii() and port.isdigit() and int(port) < 1 << 16:
        plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        plain = "127.0.0.1" if plain == "localhost" else plain
        with suppress(ValueError):
            return Address("", str(ipaddress.ip_address(plain)), int(port))
    message = f"address is {text!r}, expected unix:PATH or tcp:ADDRESS:PORT with a numeric address"
    raise UsageError(message)


@contextmanager
def listening(address: Address) -> Iterator[tuple[socket.socket, Address]]:
    """
    Listen inside the block; yield the socket, and the address with the port chosen by the kernel.

    A UNIX socket has mode 0600, and is removed at the end.

    :raises SnapmigError: the address is in use, or not ours
    """
    family = socket.AF_UNIX if address.path else socket.AF_INET
    family = socket.AF_INET6 if ":" in address.host else family
    with socket.socket(family) as listener:
        try:
            if address.path:
                _bind_private(listener, address.path)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address.host, address.port))
                address = address._replace(port=listener.getsockname()[1])
            listener.listen(_BACKLOG)
        except OSError as error:
            message = f"can't listen at {address}: {error.strerror or error}"
            raise SnapmigError(message) from error
        try:
            yield listener, address
        finally:
            if address.path:
                with suppress(OSError):
                    Path(address.path).unlink()


def _bind_private(listener: socket.socket, path: str) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)


def check_no_more(listener: socket.socket, wanted: int) -> None:
    """
    Refuse further connections: pages on a channel nobody expected would be missing.

    :param wanted: number of channels expected
    :raises MigrationError: there is one
    """
    with suppress(BlockingIOError):
        listener.accept()[0].close()
        message = (
            f"more than {wanted} channels came: expected as many as the source's parameter "
            "multifd-channels says"
        )
        raise MigrationError(message)


def accept_plain(
    listener: socket.socket, channels: int, first_s: float, all_s: float
) -> Connections:
    """
    Accept the main connection and all channels, once the first has come.

    :param first_s: seconds to wait for the first
    :param all_s: seconds to wait for the others
    :raises MigrationError: too many or too few come
    """
    wait_for_first(listener, first_s)
    return accept_all(listener, channels, all_s)


def accept_secure(
    listener: socket.socket, channels: int, folder: str, first_s: float, all_s: float
) -> Connections:
    """
    Accept the main connection first, and then all channels, whose handshakes are their workers'.

    :param folder: certificates as of QEMU's ``tls-creds-x509``
    :raises MigrationError: the source has no valid certificate, or too few connections come
    """
    wait_for_first(listener, first_s)
    main = SecureConnection(_accept(listener, all_s, "main connection"), folder, _HANDSHAKE_S)
    opened: list[socket.socket] = []
    try:
        for number in range(channels):
            opened.append(_accept(listener, all_s, f"channel {number} of {channels}"))
    except BaseException:
        for connection in (main, *opened):
            connection.close()
        raise
    return Connections(main, tuple(opened))


def wait_for_first(listener: socket.socket, limit_s: float) -> None:
    """
    Wait for a first connection, and leave it to be accepted.

    :raises MigrationError: none comes in time
    """
    deadline = time.monotonic() + limit_s
    while not _is_readable(listener, _MOMENT_S):
        raise_if_cancelled()
        if time.monotonic() > deadline:
            raise MigrationError(f"no migration came in {limit_s:g} s")


def _accept(listener: socket.socket, limit_s: float, name: str) -> socket.socket:
    deadline = time.monotonic() + limit_s
    listener.setblocking(False)
    while time.monotonic() < deadline:
        raise_if_cancelled()
        if _is_readable(listener, _MOMENT_S):
            with suppress(BlockingIOError):
                connection, _ = listener.accept()
                connection.setblocking(True)
                return connection
    raise MigrationError(f"{name} did not come in {limit_s:g} s")


def _is_readable(listener: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(1000 * seconds))
