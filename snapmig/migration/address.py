"""Addresses of migrations: a UNIX socket, or TCP."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import NamedTuple

from snapmig.errors import UsageError

__all__ = ("Address", "parse_address")


class Address(NamedTuple):
    """
    A place to listen at, or to connect to.

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
        """True if only this host is at the other end."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback

    @property
    def for_socket(self) -> str | tuple[str, int]:
        """The address as a socket takes it."""
        return self.path or (self.host, self.port)

    def new_socket(self) -> socket.socket:
        """Return a new socket of the address's family."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return socket.socket(socket.AF_UNIX if self.path else family)


def parse_address(text: str) -> Address:
    """
    Return an address.

    :param text: ``unix:PATH`` or ``tcp:ADDRESS:PORT``
    :raises UsageError: it is neither
    """
    kind, _, rest = text.partition(":")
    if kind == "libvirt":
        message = "libvirt loads a guest only from its own image: use restore --format libvirt"
        raise UsageError(f"{message}, then virsh restore", path=text)
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
