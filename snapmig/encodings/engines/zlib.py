"""Python's own zlib: slow, always present, and the reference for deflate streams."""

from __future__ import annotations

import zlib
from functools import partial

from snapmig.encodings.coders import Coder, Immediate
from snapmig.encodings.engines.engine import DeflateSettings, EngineFacts
from snapmig.errors import CorruptSnapshotError
from snapmig.system.files import Buffer

__all__ = ("ZlibEngine",)


class ZlibEngine:
    """The engine ``python``: no accelerator, every level."""

    name = "python"
    trusted = True
    levels = range(1, 10)
    max_window_bits = 15
    signs: tuple[str, ...] = ()

    def facts(self) -> EngineFacts:
        """Return its constant facts."""
        return EngineFacts(
            name=self.name,
            title="zlib of Python's standard library",
            hardware=False,
            version=zlib.ZLIB_RUNTIME_VERSION,
            library="zlib",
            devices=(),
            problem=None,
            remedy=None,
            levels=tuple(self.levels),
            compress_window_bits=15,
            decompress_window_bits=15,
        )

    def compressor(self, settings: DeflateSettings) -> Coder:
        """Return a coder of depth one."""
        return Immediate(partial(_compress, settings.level, settings.window_bits))

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:  # noqa: ARG002
        """Return a coder of depth one."""
        return Immediate(partial(_decompress, window_bits))


def _compress(level: int, window_bits: int, data: Buffer, _limit: int) -> bytes:
    encoder = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    return encoder.compress(data) + encoder.flush()


def _decompress(window_bits: int, stored: Buffer, size: int) -> bytes:
    decoder = zlib.decompressobj(-window_bits)
    try:
        plain = decoder.decompress(stored, size + 1)
    except zlib.error as error:
        raise CorruptSnapshotError(f"deflate stream: {error}") from error
    if len(plain) != size or not decoder.eof or decoder.unused_data:
        found = f"{len(plain)} bytes" if decoder.eof else f"{len(plain)} bytes and no end"
        raise CorruptSnapshotError(f"deflate stream gives {found}, expected {size} bytes")
    return plain
