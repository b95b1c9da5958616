"""A socket at which a migration is awaited."""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from pathlib import Path

from snapmig.errors import SnapmigError
from snapmig.migration.address import Address
from snapmig.migration.connections import Connections, accept_all, add_secure, take_latecomers
from snapmig.migration.tls import SecureConnection
from snapmig.migration.wire import MigrationError
from snapmig.system.signals import raise_if_cancelled

__all__ = ("Listener",)

_BACKLOG = 256
_MOMENT_S = 0.05
_HANDSHAKE_S = 20.0


class Listener:
    """
    A socket at an address; a context manager.

    A UNIX socket has mode 0600, and is removed at the end.

    :ivar address: with the port chosen by the kernel
    :raises SnapmigError: the address is in use, or not ours
    """

    def __init__(self, address: Address) -> None:
        self._socket = address.new_socket()
        self._bound = False
        try:
            if address.path:
                _bind_private(self._socket, address.path)
                self._bound = True
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._socket.bind(address.for_socket)
                address = address._replace(port=self._socket.getsockname()[1])
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self.close()
            message = f"can't listen at {address}: {error.strerror or error}"
            raise SnapmigError(message) from error
        self._socket.setblocking(False)
        self.address = address

    def close(self) -> None:
        """Stop listening. Connections stay open."""
        self._socket.close()
        if self._bound:
            with suppress(OSError):
                Path(self.address.path).unlink()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def accept(
        self, channels: int, certificates: str | None, first_s: float, all_s: float
    ) -> Connections:
        """
        Accept the main connection and all channels.

        :param certificates: a folder as of QEMU's ``tls-creds-x509``; then the main connection must
            come first
        :param first_s: seconds to wait for the first connection
        :param all_s: seconds to wait for the others
        :raises MigrationError: too many or too few come, or the source has no valid certificate
        """
        self._wait_for_first(first_s)
        if certificates is None:
            return accept_all(self._socket, channels, all_s)
        opened: list[SecureConnection] = []
        found: dict[int, SecureConnection] = {}
        names = ["main connection", *(f"channel {at} of {channels}" for at in range(channels))]
        try:
            for name in names:
                plain = self._accept(all_s, name)
                opened += [SecureConnection(plain, certificates, _HANDSHAKE_S)]
                if len(opened) > 1:
                    add_secure(found, opened[-1], channels)
        except BaseException:
            for connection in opened:
                connection.close()
            raise
        return Connections(opened[0], tuple(found[number] for number in range(channels)))

    def check_no_more(self, channels: int) -> None:
        """
        Refuse further connections: pages on a channel nobody expected would be missing.

        :param channels: their expected number
        :raises MigrationError: there is one
        """
        with suppress(BlockingIOError):
            surplus = [self._socket.accept()[0], *take_latecomers(self._socket)]
            for connection in surplus:
                connection.close()
            message = (
                f"more than {channels} channels came, expected as many as the parameter "
                "multifd-channels of the source"
            )
            raise MigrationError(message)

    def _wait_for_first(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not self._is_readable():
            raise_if_cancelled()
            if time.monotonic() > deadline:
                raise MigrationError(f"no migration came in {limit_s:g} s")

    def _accept(self, limit_s: float, name: str) -> socket.socket:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            raise_if_cancelled()
            if self._is_readable():
                with suppress(BlockingIOError):
                    connection, _ = self._socket.accept()
                    connection.setblocking(True)
                    return connection
        raise MigrationError(f"{name} did not come in {limit_s:g} s")

    def _is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(1000 * _MOMENT_S))


def _bind_private(listener: socket.socket, path: str) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
