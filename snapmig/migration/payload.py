"""Contents of a packet's pages: as they are, or in one compressed stream of the whole channel."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from snapmig.errors import UsageError
from snapmig.migration.compression import WireCompression
from snapmig.migration.wire import MigrationError
from snapmig.pages import Bytes

__all__ = ("Inflater", "make_inflater")

_ZSTD_STEP = 1 << 10

Inflater = Callable[[WireCompression, Bytes, int], Bytes]
"""Returns the contents of a payload, by its compression, bytes, and length of the contents."""


def make_inflater() -> Inflater:
    """
    Return the inflater of one channel.

    QEMU flushes its stream after each packet and never ends it, so each packet has its own output.
    """
    streams: dict[WireCompression, Any] = {}

    def inflate(compression: WireCompression, raw: Bytes, length: int) -> Bytes:
        if compression == WireCompression.NONE or not length:
            return raw
        if compression not in streams:
            streams[compression] = _OPEN[compression]()
        try:
            found = _DECODE[compression](streams[compression], raw, length)
        except Exception as error:  # zlib.error, or the other library's
            raise MigrationError(
                f"packet is no {compression.name.lower()} stream: {error}"
            ) from error
        if len(found) != length:
            message = f"packet has {len(found)} bytes of pages, expected {length}"
            raise MigrationError(message)
        return np.frombuffer(found, np.uint8)

    return inflate


def _open_zlib() -> Any:
    return zlib.decompressobj()


def _inflate_zlib(stream: Any, raw: Bytes, length: int) -> bytes:
    # One byte more than expected shows a packet that is too long.
    found: bytes = stream.decompress(raw, length + 1)
    return found


def _open_zstd() -> Any:
    try:
        import zstandard  # noqa: PLC0415 - optional
    except ImportError as error:
        message = "packets compressed by zstd need zstandard: pip install 'snapmig[zstd]'"
        raise UsageError(message) from error
    return zstandard.ZstdDecompressor().decompressobj()


def _inflate_zstd(stream: Any, raw: Bytes, length: int) -> bytes:
    # The library has no limit for the output. A KiB becomes 32 MiB at most: 4 bytes make a block of
    # 128 KiB.
    parts, size = [], 0
    for at in range(0, len(raw), _ZSTD_STEP):
        parts.append(stream.decompress(raw[at : at + _ZSTD_STEP]))
        size += len(parts[-1])
        if size > length:
            break
    return b"".join(parts)


_OPEN = {WireCompression.ZLIB: _open_zlib, WireCompression.ZSTD: _open_zstd}
_DECODE = {WireCompression.ZLIB: _inflate_zlib, WireCompression.ZSTD: _inflate_zstd}
