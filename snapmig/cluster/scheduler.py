"""Address and certificates of a Dask scheduler, checked before anything begins."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from snapmig.errors import UsageError

__all__ = ("Scheduler",)

_SCHEMES = ("tcp", "tls")


@dataclass(frozen=True, slots=True)
class Scheduler:
    """
    The address of a Dask scheduler.

    :param address: ``tcp://HOST:PORT``, or ``tls://HOST:PORT`` with certificates
    :param tls_ca: certificate of everybody's authority
    :param tls_cert: our own certificate
    :param tls_key: its key; None if ``tls_cert`` contains it too
    :raises UsageError: a malformed address, certificates without TLS, or TLS without certificates
    """

    address: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        scheme, separator, place = self.address.partition("://")
        host, colon, port = place.rpartition(":")
        sound = separator and scheme in _SCHEMES and host and colon and _is_port(port)
        if not sound:
            message = f"scheduler is {self.address!r}, expected tcp://HOST:PORT or tls://HOST:PORT"
            raise UsageError(message)
        if scheme == "tls" and (self.tls_ca is None or self.tls_cert is None):
            raise UsageError(
                f"{self.address} needs a certificate and its authority: tls-ca, tls-cert"
            )
        files = [file for file in (self.tls_ca, self.tls_cert, self.tls_key) if file is not None]
        if scheme == "tcp" and files:
            raise UsageError(
                f"{self.address} is not encrypted, certificates are for tls://HOST:PORT"
            )
        for file in files:
            if not os.access(file, os.R_OK):
                raise UsageError("can't be read", path=str(file))

    @property
    def encrypted(self) -> bool:
        """True if the connection uses TLS."""
        return self.address.startswith("tls://")

    @property
    def on_loopback(self) -> bool:
        """True if it listens on this machine only."""
        host = self.address.partition("://")[2].rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 1 << 16
