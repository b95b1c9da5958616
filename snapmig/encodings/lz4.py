"""
LZ4 blocks without a frame, through the lz4 package.

cramjam decodes into an existing buffer, a fifth faster, but has no levels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from snapmig.encodings.coders import Coder, Immediate
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.system.files import Buffer

__all__ = ("LEVELS", "compressor", "decompressor", "require")

LEVELS = range(1, 13)
"""As the program lz4 counts them: 1 and 2 are the fast compressor, from 3 on LZ4_HC."""

_FIRST_HIGH = 3


def require() -> Any:
    """
    Return the library, imported only when needed.

    :raises SnapmigError: it is missing
    """
    try:
        import lz4.block  # noqa: PLC0415
    except ImportError as error:
        message = "lz4 needs the Python package lz4: pip install 'snapmig[lz4]'"
        raise SnapmigError(message) from error
    return lz4.block


def compressor(level: int) -> Coder:
    """Return a coder of blocks."""
    mode: dict[str, Any] = {"mode": "default"}
    if level >= _FIRST_HIGH:
        mode = {"mode": "high_compression", "compression": level}
    compress = partial(require().compress, store_size=False, **mode)
    return Immediate(lambda data, _limit: compress(data))


def decompressor() -> Coder:
    """Return a coder limited to the memory of a packet."""
    return Immediate(partial(_decompress, require()))


def _decompress(library: Any, stored: Buffer, size: int) -> bytes:
    try:
        plain: bytes = library.decompress(stored, uncompressed_size=size)
    except library.LZ4BlockError as error:
        raise CorruptSnapshotError(f"LZ4 block: {error}") from error
    if len(plain) != size:
        raise CorruptSnapshotError(f"LZ4 block gives {len(plain)} bytes, expected {size} bytes")
    return plain
