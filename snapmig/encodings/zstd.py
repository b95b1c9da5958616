"""
zstd frames (RFC 8878), through the zstandard package.

Its one-shot calls are as fast as reading into an existing buffer, and only they report bytes after
the frame.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from snapmig.encodings.coders import Coder, Immediate
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.system.files import Buffer

__all__ = ("LEVELS", "compressor", "decompressor", "require")

LEVELS = range(-7, 20)
"""Levels of zstd; those from 20 on need more memory to decode, 0 stands for its default, 3."""


def require() -> Any:
    """
    Return the library, imported only when needed: it takes 10 ms.

    :raises SnapmigError: it is missing
    """
    try:
        import zstandard  # noqa: PLC0415
    except ImportError as error:
        message = "zstd needs the Python package zstandard: pip install 'snapmig[zstd]'"
        raise SnapmigError(message) from error
    return zstandard


def compressor(level: int) -> Coder:
    """Return a coder of frames with content size and without checksum."""
    encoder = require().ZstdCompressor(
        level=level, write_content_size=True, write_checksum=False, write_dict_id=False
    )
    return Immediate(lambda data, _limit: encoder.compress(data))


def decompressor() -> Coder:
    """Return a coder limited to the memory of a packet."""
    library = require()
    return Immediate(
        partial(_decompress, library, library.ZstdDecompressor(max_window_size=1 << 23))
    )


def _decompress(library: Any, decoder: Any, stored: Buffer, size: int) -> bytes:
    try:
        found = library.frame_content_size(stored)
        if found != size:  # the decoder takes as much memory as the frame's header asks for
            words = "no size" if found < 0 else f"{found} bytes"
            raise CorruptSnapshotError(f"zstd frame announces {words}, expected {size} bytes")
        plain: bytes = decoder.decompress(stored, allow_extra_data=False)
    except library.ZstdError as error:
        raise CorruptSnapshotError(f"zstd frame: {error}") from error
    return plain
