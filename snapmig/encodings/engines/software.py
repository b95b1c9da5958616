"""Deflate in software: ISA-L, the engine of every host, and Python's own zlib, the reference."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import isal

from snapmig.encodings import deflate
from snapmig.encodings.coders import Coder, Immediate
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.errors import CorruptSnapshotError
from snapmig.system.files import Buffer

if TYPE_CHECKING:
    from snapmig.encodings.engines.facts import EngineFacts

__all__ = ("ISAL", "ZLIB")


class _SoftwareEngine:
    # A synchronous library: its coders have the depth of one.
    trusted = True
    max_window_bits = 15

    def __init__(
        self,
        name: str,
        title: str,
        version: str,
        library: str,
        levels: range,
        compress: Callable[[Buffer, int, int], bytes],
        decompress: Callable[[Buffer, int, int], bytes],
    ) -> None:
        self.name = name
        self.levels = levels
        self._about = title, version, library
        self._compress = compress
        self._decompress = decompress

    def facts(self) -> EngineFacts:
        from snapmig.encodings.engines.facts import EngineFacts  # noqa: PLC0415 - rarely asked for

        title, version, library = self._about
        return EngineFacts(
            name=self.name,
            title=title,
            hardware=False,
            version=version,
            library=library,
            devices=(),
            problem=None,
            remedy=None,
            levels=tuple(self.levels),
            compress_window_bits=self.max_window_bits,
            decompress_window_bits=self.max_window_bits,
        )

    def compressor(self, settings: DeflateSettings) -> Coder:
        level, bits = settings.level, settings.window_bits
        return Immediate(lambda data, _limit: self._compress(data, level, bits))

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:  # noqa: ARG002
        return Immediate(lambda stored, size: self._decompress(stored, size, window_bits))


def _compress(data: Buffer, level: int, window_bits: int) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    return deflate.ended(encoder.compress(data), encoder.flush(zlib.Z_SYNC_FLUSH))


def _decompress(stored: Buffer, size: int, window_bits: int) -> bytes:
    decoder = zlib.decompressobj(-window_bits)
    try:
        plain = decoder.decompress(stored, size + 1)
    except zlib.error as error:
        raise CorruptSnapshotError(f"deflate stream: {error}") from error
    if len(plain) != size or not decoder.eof or decoder.unused_data:
        found = f"{len(plain)} bytes" if decoder.eof else f"{len(plain)} bytes and no end"
        raise CorruptSnapshotError(f"deflate stream gives {found}, expected {size} bytes")
    return plain


ISAL = _SoftwareEngine(
    "isal",
    "ISA-L, with the processor's vector units",
    isal.__version__,
    "isal",
    deflate.LEVELS,
    deflate.compress,
    deflate.decompress,
)
ZLIB = _SoftwareEngine(
    "python",
    "zlib of Python's standard library",
    zlib.ZLIB_RUNTIME_VERSION,
    "zlib",
    range(1, 10),
    _compress,
    _decompress,
)
