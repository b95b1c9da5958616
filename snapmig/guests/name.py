"""Names of guests: the socket of a monitor is a string, a domain of libvirt's has more."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("Domain",)


class Domain(NamedTuple):
    """
    A domain of libvirt's.

    :param name: or its UUID
    :param uri: of the connection; None for libvirt's own default
    """

    name: str
    uri: str | None = None
