"""
Raw deflate through ISA-L, the accelerated zlib backend.

Raw deflate has no checksum of its own: most flipped bits decode to wrong bytes of the right length.
Callers check the stored bytes before and the contents after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from isal import igzip_lib, isal_zlib

from snapmig.errors import CorruptSnapshotError
from snapmig.system.files import Buffer

__all__ = (
    "compress",
    "compress_flushed",
    "compress_stream",
    "decompress",
    "decompress_stream",
    "ended",
    "without_end",
)

DEFAULT_LEVEL = 1
LEVELS = range(4)
"""ISA-L's levels: 0 is one pass with fixed codes, not "no compression"."""
_STEP = 1 << 20
"""Bytes that a stream of pieces gives at once."""
_FLUSHED = b"\x00\x00\xff\xff"
"""The last bytes before a sync flush's end: an empty stored block."""
_END = b"\x03\x00"
"""An empty final block."""


def compress(data: Buffer, level: int, window_bits: int) -> bytes:
    """
    Return contiguous bytes as one raw deflate stream, as :func:`ended` makes one.

    ISA-L silently treats a window of 0 or more than 15 bits as 15, and one below 9 as none;
    settings are checked before.
    """
    return ended(*_flushed(data, level, window_bits))


def compress_flushed(data: Buffer, level: int, window_bits: int) -> bytes:
    """Return contiguous bytes as raw deflate blocks up to a sync flush, not the end of a stream."""
    return b"".join(_flushed(data, level, window_bits))


def _flushed(data: Buffer, level: int, window_bits: int) -> tuple[bytes, bytes]:
    encoder = isal_zlib.compressobj(level, wbits=-window_bits)
    return encoder.compress(data), encoder.flush(isal_zlib.Z_SYNC_FLUSH)


def ended(*flushed: bytes) -> bytes:
    """
    Return the stream of pieces whose last one ends in a sync flush.

    Its end is a block of its own, so that the stream can also be a part of a longer one.
    """
    return b"".join((*flushed, _END))


def without_end(stream: bytes) -> memoryview | None:
    """Return a stream of :func:`ended` up to its sync flush, None for any other."""
    found = stream.endswith(_FLUSHED + _END)
    return memoryview(stream)[: -len(_END)] if found else None


def decompress(stored: Buffer, size: int, window_bits: int) -> bytes:
    """
    Return the ``size`` bytes of a raw deflate stream that ends with its buffer.

    :raises CorruptSnapshotError: not a stream, another length, or bytes after its end
    """
    decoder = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE, window_bits)
    try:
        # One byte more than expected, so that a longer stream shows and ISA-L needs no second
        # round.
        plain = decoder.decompress(stored, size + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # the stub calls it an instance
        raise CorruptSnapshotError(f"deflate stream: {error}") from error
    if len(plain) != size or not decoder.eof or decoder.unused_data:
        found = f"{len(plain)} bytes" if decoder.eof else f"{len(plain)} bytes and no end"
        rest = f" and {len(decoder.unused_data)} bytes after it" if decoder.unused_data else ""
        raise CorruptSnapshotError(f"deflate stream gives {found}{rest}, expected {size} bytes")
    return plain


def compress_stream(pieces: Iterable[bytes], level: int = DEFAULT_LEVEL) -> Iterator[bytes]:
    """Yield one raw deflate stream of pieces, in constant memory."""
    encoder = isal_zlib.compressobj(level, wbits=-15)
    for piece in pieces:
        if out := encoder.compress(piece):
            yield out
    yield encoder.flush()


def decompress_stream(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """
    Yield the ``size`` bytes of a raw deflate stream in pieces, in constant memory.

    :param pieces: the stream; both must end together
    :raises CorruptSnapshotError: not a stream, another length, or bytes after its end
    """
    decoder = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE, 15)
    done, rest = 0, 0
    for piece in pieces:
        if decoder.eof:
            rest += len(piece)
            continue
        for plain in _decode(decoder, piece):
            done += len(plain)
            if done > size:
                message = f"deflate stream gives {done} bytes or more, expected {size} bytes"
                raise CorruptSnapshotError(message)
            yield plain
    rest += len(decoder.unused_data)
    if done != size or rest or not decoder.eof:
        found = f"{done} bytes" if decoder.eof else f"{done} bytes and no end"
        after = f" and {rest} bytes after it" if rest else ""
        raise CorruptSnapshotError(f"deflate stream gives {found}{after}, expected {size} bytes")


def _decode(decoder: igzip_lib.IgzipDecompressor, piece: bytes) -> Iterator[bytes]:
    try:
        while plain := decoder.decompress(piece, _STEP):
            yield plain
            piece = b""
            if decoder.eof or decoder.needs_input:
                return
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # the stub calls it an instance
        raise CorruptSnapshotError(f"deflate stream: {error}") from error
