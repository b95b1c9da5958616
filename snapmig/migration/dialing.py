"""Connections to a destination: at a UNIX socket or by TCP, with TLS where asked for."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Sequence

from snapmig.migration.address import Address
from snapmig.migration.packing import pack_hello
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.system.signals import raise_if_cancelled

__all__ = ("Connection", "Dialer", "closed_channel")

Connection = socket.socket | SecureConnection

_ONCE_S = 10.0
_RETRY_S = 0.1
_BUSY = (errno.EAGAIN,)
_LATER = (
    *_BUSY,
    errno.ECONNREFUSED,
    errno.ENOENT,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)
"""Reasons that may go away: QEMU does not listen yet, or its host is not up."""


class Dialer:
    """
    Connects to a destination that waits for a migration.

    Each connection's first bytes are sent at once, because QEMU waits for them to tell channels
    from the main connection.

    :param certificates: a folder as of QEMU's ``tls-creds-x509``; None for no TLS
    """

    def __init__(self, address: Address, certificates: str | None = None) -> None:
        self._address = address
        self._certificates = certificates

    def open_main(self, first: bytes, patience_s: float = 0.0) -> Connection:
        """
        Connect, and send the first bytes of the stream.

        :param patience_s: seconds in which the destination may begin to listen
        :raises MigrationError: nobody listens there, or it has no valid certificate
        """
        return self._open(first, "", patience_s, _LATER)

    def open_channel(self, number: int, uuid: bytes) -> Connection:
        """
        Connect a channel.

        :param uuid: of the guest, 16 bytes
        :raises MigrationError: as :meth:`open_main`
        """
        return self._open(pack_hello(number, uuid), f"channel {number}: ", _ONCE_S, _BUSY)

    def _open(self, first: bytes, name: str, patience_s: float, later: Sequence[int]) -> Connection:
        try:
            return self._greeted(self._connected(patience_s, later), first)
        except OSError as error:
            message = f"{name}can't connect to {self._address}: {error.strerror or error}"
            raise MigrationError(message) from error
        except MigrationError as error:
            error.args = (f"{name}{self._address}: {error.message}",)
            raise

    def _greeted(self, plain: socket.socket, first: bytes) -> Connection:
        connection: Connection = plain
        try:
            plain.settimeout(_ONCE_S)
            if self._certificates is not None:
                host = self._address.host
                connection = SecureConnection(plain, self._certificates, _ONCE_S, server=host)
            connection.sendall(first)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self, patience_s: float, later: Sequence[int]) -> socket.socket:
        deadline = time.monotonic() + patience_s
        while True:
            raise_if_cancelled()
            left = deadline - time.monotonic()
            try:
                return _connect(self._address, min(_ONCE_S, left) if left > 0 else _ONCE_S)
            except OSError as error:
                code = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
                if code not in later or left <= 0:
                    raise
            time.sleep(min(_RETRY_S, left))


def closed_channel(channels: Sequence[Connection]) -> int | None:
    """Return the number of a channel closed by the destination, None if all are open."""
    poll = select.poll()
    numbers = {channel.fileno(): number for number, channel in enumerate(channels)}
    for descriptor in numbers:
        poll.register(descriptor, select.POLLRDHUP)
    return min((numbers[descriptor] for descriptor, _ in poll.poll(0)), default=None)


def _connect(address: Address, limit_s: float) -> socket.socket:
    connection = address.new_socket()
    try:
        connection.settimeout(limit_s)
        connection.connect(address.for_socket)
        if not address.path:
            if connection.getsockname() == connection.getpeername():
                # The kernel may choose the port where nobody listens for our own end.
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection
