"""
Connections with TLS, with certificates laid out as for QEMU's ``tls-creds-x509``.

The source must show a certificate of the same authority, as QEMU's own destination demands.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from snapmig.errors import UsageError
from snapmig.migration.wire import MigrationError

__all__ = ("SecureConnection", "check_certificates")

_AUTHORITY, _CERTIFICATE, _KEY = "ca-cert.pem", "server-cert.pem", "server-key.pem"
_REVOKED = "ca-crl.pem"
_NO_TLS = "the source does not speak TLS"
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the source shows no certificate",
    "HTTP_REQUEST": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": "the source ended in the handshake",
}
"""By OpenSSL's names."""


def check_certificates(folder: str) -> None:
    """
    Refuse a folder without usable certificates.

    :raises UsageError: one is missing, or not a certificate
    """
    _context(folder)


def _context(folder: str) -> ssl.SSLContext:
    place = Path(folder)
    for name in (_AUTHORITY, _CERTIFICATE, _KEY):
        if not (place / name).is_file():
            message = f"there is no {name}, expected the files of QEMU's tls-creds-x509"
            raise UsageError(message, path=folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(place / _CERTIFICATE, place / _KEY)
        context.load_verify_locations(place / _AUTHORITY)
        if (place / _REVOKED).is_file():
            context.load_verify_locations(place / _REVOKED)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"certificates can't be used: {error}", path=folder) from error
    return context


def _reason_of(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the source's certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "", str(error.reason or error))
    return error.strerror or str(error)


class SecureConnection:
    """
    The server's end of a TLS connection, used like a socket.

    :param connection: becomes its own
    :param folder: with the certificates
    :param limit_s: seconds for the handshake
    :raises MigrationError: the other side shows no valid certificate, or does not speak TLS
    """

    def __init__(self, connection: socket.socket, folder: str, limit_s: float) -> None:
        connection.settimeout(limit_s)
        try:
            self._socket = _context(folder).wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError) as error:
            connection.close()
            raise MigrationError(f"no TLS connection: {_reason_of(error)}") from error
        self._kept = b""

    def __reduce__(self) -> tuple[object, ...]:
        # Only a fork has what was agreed on in the handshake.
        raise UsageError("with TLS a migration can't be received in a program with threads")

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
        try:
            return self._socket.recv_into(view)
        except (ssl.SSLWantReadError, TimeoutError):
            raise BlockingIOError from None

    def _receive(self, length: int) -> bytes:
        try:
            return self._socket.recv(length)
        except (ssl.SSLWantReadError, TimeoutError):
            raise BlockingIOError from None

    def sendall(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

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
