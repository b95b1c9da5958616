"""Payloads of a source's packets: pages as they are, or each packet's as one zstd frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snapmig.errors import UsageError
from snapmig.migration.wire import WireCompression
from snapmig.pages import Bytes

__all__ = ("Deflater", "make_deflater")

Deflater = Callable[[Bytes], Any]
"""Returns the payload for ``(n, 4096)`` pages."""

_LEVEL = 1


def make_deflater(compression: WireCompression) -> Deflater:
    """
    Return the deflater of a worker.

    QEMU's zstd channel is one stream, in which a new frame may begin wherever one has ended.

    :raises UsageError: the library is not installed
    """
    if compression == WireCompression.NONE:
        return lambda pages: pages.data
    try:
        import zstandard  # noqa: PLC0415 - optional
    except ImportError as error:
        message = "sending zstd frames needs zstandard: pip install 'snapmig[zstd]'"
        raise UsageError(message) from error
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    return lambda pages: compressor.compress(pages.data)
