"""
Connections with TLS, with certificates laid out as for QEMU's ``tls-creds-x509``.

Each end must show a certificate of the same authority, as QEMU's own destination demands.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from snapmig.errors import UsageError
from snapmig.migration.wire import MigrationError

__all__ = ("SecureConnection", "check_certificates")

_AUTHORITY, _REVOKED = "ca-cert.pem", "ca-crl.pem"
_SERVER, _CLIENT = "server", "client"
_NO_TLS = "the other side does not speak TLS"
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other side shows no certificate",
    "HTTP_REQUEST": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": "the other side ended in the handshake",
}
"""By OpenSSL's names."""


def check_certificates(folder: str, *, client: bool = False) -> None:
    """
    Refuse a folder without usable certificates.

    :param client: look for those of a client, not of a server
    :raises UsageError: one is missing, or not a certificate
    """
    _context(folder, client=client)


def _context(folder: str, *, client: bool) -> ssl.SSLContext:
    place, end = Path(folder), _CLIENT if client else _SERVER
    certificate, key = f"{end}-cert.pem", f"{end}-key.pem"
    for name in (_AUTHORITY, certificate, key):
        if not (place / name).is_file():
            message = f"there is no {name}, expected the files of QEMU's tls-creds-x509"
            raise UsageError(message, path=folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(place / certificate, place / key)
        context.load_verify_locations(place / _AUTHORITY)
        if (place / _REVOKED).is_file():
            context.load_verify_locations(place / _REVOKED)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"certificates can't be used: {error}", path=folder) from error
    return context


def _reason_of(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the other side's certificate is not valid: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "", str(error.reason or error))
    return error.strerror or str(error)


class SecureConnection:
    """
    An end of a TLS connection, used like a socket.

    :param connection: becomes its own
    :param folder: with the certificates
    :param limit_s: seconds for the handshake
    :param server: address in the server's certificate; None for the server's end
    :raises MigrationError: the other side shows no valid certificate, or does not speak TLS
    """

    def __init__(
        self, connection: socket.socket, folder: str, limit_s: float, server: str | None = None
    ) -> None:
        connection.settimeout(limit_s)
        context = _context(folder, client=server is not None)
        try:
            self._socket = context.wrap_socket(
                connection, server_side=server is None, server_hostname=server
            )
        except (ssl.SSLError, OSError) as error:
            connection.close()
            raise MigrationError(f"no TLS connection: {_reason_of(error)}") from error
        self._kept = b""

    def __reduce__(self) -> tuple[object, ...]:
        # Only a fork has what was agreed on in the handshake.
        raise UsageError("with TLS a migration needs a program without threads")

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def pending(self) -> int:
        """Return the number of bytes already here."""
        return len(self._kept) + self._socket.pending()

    def recv(self, length: int, flags: int = 0) -> bytes:
        """Receive bytes; ``MSG_PEEK`` only for a single one."""
        if self._kept and not flags:
            data, self._kept = self._kept, b""
            return data
        if flags & socket.MSG_PEEK:
            self._kept = self._kept or self._receive(1)
            return self._kept
        return self._receive(length)

    def recv_into(self, view: memoryview, _length: int = 0, _flags: int = 0) -> int:
        """Receive bytes into a buffer, at least one."""
        if self._kept:
            view[:1], self._kept = self._kept, b""
            return 1
        with _socket_errors():
            return self._socket.recv_into(view)

    def _receive(self, length: int) -> bytes:
        with _socket_errors():
            return self._socket.recv(length)

    def send(self, data: bytes | memoryview) -> int:
        """Send bytes, some of them at least; return their number."""
        with _socket_errors():
            return self._socket.send(data)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def sendmsg(self, parts: Sequence[bytes | memoryview]) -> int:
        """Send the first of several byte strings; return the number of bytes."""
        self._socket.sendall(parts[0])
        return len(parts[0])

    def setblocking(self, on: bool) -> None:
        """Wait for bytes, or not."""
        self._socket.setblocking(on)

    def settimeout(self, seconds: float | None) -> None:
        """Wait for bytes, so long at most."""
        self._socket.settimeout(seconds)

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        """Set an option of the socket."""
        self._socket.setsockopt(level, name, value)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@contextmanager
def _socket_errors() -> Iterator[None]:
    # As a socket without TLS raises them.
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError, TimeoutError):
        raise BlockingIOError from None
    except ssl.SSLEOFError as error:
        raise ConnectionResetError(errno.ECONNRESET, "closed by the other end") from error
    except ssl.SSLError as error:
        reason = (error.reason or "failed").lower().replace("_", " ")
        raise ConnectionAbortedError(errno.ECONNABORTED, f"TLS: {reason}") from error
