"""Options of migrations whose other end belongs to somebody else: address, channels, TLS."""

from __future__ import annotations

import os
import threading
import uuid
from typing import NamedTuple

from snapmig.errors import UsageError
from snapmig.migration.address import Address, parse_address
from snapmig.migration.tls import check_certificates

__all__ = (
    "CHANNELS",
    "Peer",
    "parse_channels",
    "parse_peer",
    "parse_timeout",
    "parse_uuid",
)

CHANNELS = 2
"""Channels of a QEMU whose parameter multifd-channels nobody has changed."""

_MOST_CHANNELS = 255
_LONGEST_S = 86_400.0


class Peer(NamedTuple):
    """
    The other end of a migration.

    :param tls: a folder with certificates, None for no TLS
    """

    address: Address
    tls: str | None


def parse_peer(
    address: str, tls: str | os.PathLike[str] | None, *, insecure: bool, client: bool = False
) -> Peer:
    """
    Return the other end.

    :param address: ``unix:PATH`` or ``tcp:ADDRESS:PORT``
    :param tls: a folder with certificates
    :param insecure: allow other hosts without TLS
    :param client: we connect, instead of listening
    :raises UsageError: no address, no usable certificates, another host without them, or threads
        beside TLS
    """
    place = parse_address(address)
    if client and not place.path and not place.port:
        raise UsageError(f"port of {place} is 0, expected one that somebody listens at")
    if tls is not None:
        if threading.active_count() > 1:  # only forked workers have the sessions
            raise UsageError("with TLS a migration needs a program without threads")
        if place.path:
            raise UsageError("TLS is for TCP: a UNIX socket does not leave this host")
        check_certificates(os.fspath(tls), client=client)
        return Peer(place, os.fspath(tls))
    if not place.is_local and not insecure:
        could = "read and change" if client else "read and write"
        whose = "on its way to" if client else "at"
        message = (
            f"anybody could {could} a guest's memory {whose} {place}: expected a folder of "
            "certificates (tls), an address of this host only, or the word that it is insecure"
        )
        raise UsageError(message)
    return Peer(place, None)


def parse_channels(channels: int) -> int:
    """
    Return a number of channels, 0 for a migration without multifd.

    :raises UsageError: negative, or more than QEMU can have
    """
    if not 0 <= channels <= _MOST_CHANNELS:
        raise UsageError(f"channels are {channels}, expected 0 to {_MOST_CHANNELS}")
    return channels


def parse_timeout(timeout: float | None, default: float) -> float:
    """
    Return a time to wait for the other end, in seconds.

    :raises UsageError: not positive, or longer than a day
    """
    seconds = default if timeout is None else float(timeout)
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(f"timeout is {timeout!r}, expected seconds above 0, up to a day")
    return seconds


def parse_uuid(text: str | None) -> bytes:
    """
    Return the 16 bytes of a guest's UUID, zeros for None.

    :raises UsageError: it is none
    """
    if text is None:
        return bytes(16)
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        message = f"uuid is {text!r}, expected one like 12345678-1234-1234-1234-123456789abc"
        raise UsageError(message) from None
