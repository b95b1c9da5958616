"""Compression of pages on the wire."""

from __future__ import annotations

from enum import IntEnum

__all__ = ("WireCompression",)


class WireCompression(IntEnum):
    """The flags of a channel's packets for compressed payloads."""

    NONE = 0
    ZLIB = 1 << 1
    ZSTD = 2 << 1
    QPL = 4 << 1
    UADK = 8 << 1
    QATZIP = 16 << 1
