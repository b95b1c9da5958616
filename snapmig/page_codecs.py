"""
Compressions of single pages in dumps: zlib, LZO1X, snappy and zstd.

Apart from the encodings of packets, because images are read without knowing those.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from isal import isal_zlib

from snapmig.errors import SnapmigError

__all__ = ("CODECS", "compress_zlib", "decompressor")

Decompress = Callable[[bytes, int], bytes]
"""Returns the contents of stored bytes, if these are as many as the number says."""

CODECS = ("zlib", "lzo", "snappy", "zstd")

_PACKAGES = {"lzo": "lzallright", "snappy": "cramjam", "zstd": "zstandard"}


def decompressor(codec: str) -> Decompress:
    """
    Return a function for the pages of a compression; it raises ValueError for damaged ones.

    :raises SnapmigError: the library is missing
    """
    if codec == "zlib":
        return _from_zlib
    name = _PACKAGES[codec]
    try:
        library = import_module(name)
    except ImportError as error:
        message = f"{codec} pages need the Python package {name}: pip install 'snapmig[kdump]'"
        raise SnapmigError(message) from error
    return _MAKERS[codec](library)


def compress_zlib(page: Any) -> bytes:
    """Return a page as a zlib stream."""
    # In one call ISA-L's result depends on what its buffers had before.
    encoder = isal_zlib.compressobj(1)
    return encoder.compress(page) + encoder.flush()


def _from_zlib(stored: bytes, size: int) -> bytes:
    decoder = isal_zlib.decompressobj()
    try:
        # One byte more, so that the end of the stream is reached and its checksum compared.
        plain: bytes = decoder.decompress(stored, size + 1)
    except isal_zlib.error as error:  # type: ignore[misc]  # the stub calls it an instance
        raise ValueError(str(error)) from error
    if not decoder.eof:
        raise ValueError("the stream does not end there")
    return _of_size(plain, size)


def _lzo(library: Any) -> Decompress:
    def decompress(stored: bytes, size: int) -> bytes:
        try:
            return _of_size(library.LZOCompressor.decompress(stored, size), size)
        except library.LZOError as error:
            raise ValueError(str(error) or type(error).__name__) from error

    return decompress


def _snappy(library: Any) -> Decompress:
    def decompress(stored: bytes, size: int) -> bytes:
        try:
            found = library.snappy.decompress_raw_len(stored)
            if found != size:  # before memory is allocated for it
                raise ValueError(f"{found} bytes are announced")
            return bytes(library.snappy.decompress_raw(stored))
        except library.DecompressionError as error:
            raise ValueError(str(error)) from error

    return decompress


def _zstd(library: Any) -> Decompress:
    decoder = library.ZstdDecompressor(max_window_size=1 << 23)

    def decompress(stored: bytes, size: int) -> bytes:
        try:
            found = library.frame_content_size(stored)
            if found not in (size, -1):  # the decoder takes as much memory as a frame announces
                raise ValueError(f"{found} bytes are announced")
            return _of_size(decoder.decompress(stored, max_output_size=size), size)
        except library.ZstdError as error:
            raise ValueError(str(error)) from error

    return decompress


def _of_size(plain: bytes, size: int) -> bytes:
    if len(plain) != size:
        raise ValueError(f"it has {len(plain)} bytes")
    return plain


_MAKERS: dict[str, Callable[[Any], Decompress]] = {"lzo": _lzo, "snappy": _snappy, "zstd": _zstd}
