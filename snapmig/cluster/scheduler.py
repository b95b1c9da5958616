"""Which Dask scheduler, and the certificates to speak with it: checked before anything is begun."""

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
    Where a Dask scheduler listens.

    :param address: ``tcp://HOST:PORT``, or ``tls://HOST:PORT`` with certificates
    :param tls_ca: file of the authority that signed everybody's certificate
    :param tls_cert: file of our own certificate
    :param tls_key: file of its key; None where ``tls_cert`` holds it too
    :raises UsageError: no such address, or certificates where there is no TLS or the reverse
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
        """Whether it is spoken with by TLS."""
        return self.address.startswith("tls://")

    @property
    def on_loopback(self) -> bool:
        """Whether it is on this machine, at an address that no other one reaches."""
        host = self.address.partition("://")[2].rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 1 << 16
