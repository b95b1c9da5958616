"""Payloads of a source's packets: pages as they are, or compressed, each packet by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from snapmig.encodings import deflate
from snapmig.errors import UsageError
from snapmig.migration.compression import WireCompression
from snapmig.pages import Bytes
from snapmig.system.files import Buffer

__all__ = ("Deflater", "make_deflater")

_LEVEL = 1
_WINDOW_BITS = 15
_ZLIB_HEADER = b"\x78\x01"
"""Of a zlib stream with a window of 32 KiB."""


class Deflater(Protocol):
    """Makes the payloads of one channel, in the order in which they are sent."""

    def pages(self, pages: Bytes) -> Buffer:
        """Return the payload for ``(n, 4096)`` pages."""

    def stored(self, stream: bytes) -> Buffer | None:
        """Return the payload for pages compressed as the channel's already, None if impossible."""


def make_deflater(compression: WireCompression) -> Deflater:
    """
    Return the deflater of a channel.

    :raises UsageError: the library is not installed
    """
    return _DEFLATERS[compression]()


class _Plain:
    def pages(self, pages: Bytes) -> Buffer:
        return pages.data

    def stored(self, stream: bytes) -> Buffer | None:  # noqa: ARG002
        return None


class _Zstd:
    # QEMU's channel is one stream, in which a new frame may begin wherever one has ended.
    def __init__(self) -> None:
        try:
            import zstandard  # noqa: PLC0415 - optional
        except ImportError as error:
            message = "sending zstd frames needs zstandard: pip install 'snapmig[zstd]'"
            raise UsageError(message) from error
        self._compressor: Any = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)

    def pages(self, pages: Bytes) -> Buffer:
        frame: bytes = self._compressor.compress(pages.data)
        return frame

    def stored(self, stream: bytes) -> Buffer | None:
        return stream


class _Zlib:
    # QEMU's channel is one stream without an end, each packet up to a sync flush. Nothing in a
    # packet refers to the packets before, so their order is of no matter.
    def __init__(self) -> None:
        self._header = _ZLIB_HEADER

    def pages(self, pages: Bytes) -> Buffer:
        return self._begun(deflate.compress_flushed(pages, _LEVEL, _WINDOW_BITS))

    def stored(self, stream: bytes) -> Buffer | None:
        flushed = deflate.without_end(stream)
        return None if flushed is None else self._begun(flushed)

    def _begun(self, payload: Buffer) -> Buffer:
        header, self._header = self._header, b""
        return header + bytes(payload) if header else payload


_DEFLATERS: dict[WireCompression, Callable[[], Deflater]] = {
    WireCompression.NONE: _Plain,
    WireCompression.ZSTD: _Zstd,
    WireCompression.ZLIB: _Zlib,
}
