"""
One packet's pages to stored bytes and back.

Zero pages are not stored. The others, in order, are one deflate stream, or stored as they are
where that takes no more 4 KiB blocks; a packet never outgrows its slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.encodings import deflate
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Mask, data_mask
from snapmig.sums import crc32, xxh3_128
from snapmig.system.files import Buffer

__all__ = ("EncodedPacket", "PacketSettings", "decode", "encode", "encode_data", "summarise")

NO_DIGEST = bytes(16)
"""In place of a digest where a packet has no data page."""

_SAMPLE_BYTES = 256
_SAMPLE_DISTINCT = 140
"""256 random bytes have 162 different values on average and fewer than 140 practically never;
machine code, text and tables have 20 to 120."""
_SAMPLE_PAGES = 4


@dataclass(frozen=True, slots=True)
class PacketSettings:
    """How packets are encoded: ISA-L's level, and the window in bits (12 is 4 KiB)."""

    level: int = deflate.DEFAULT_LEVEL
    window_bits: int = 15


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """
    A packet ready to be stored.

    :param mask: which of its pages are data, the others being zero
    :param payload: the stored bytes: a deflate stream, or the data pages as ``(n, 4096)``
    """

    mask: Mask
    encoding: Encoding
    payload: Buffer
    stored_size: int
    stored_checksum: int
    digest: bytes


def summarise(pages: Bytes) -> tuple[Mask, Bytes, bytes]:
    """Return which of ``(n, 4096)`` pages are not zero, those pages, and their digest."""
    mask = data_mask(pages)
    count = int(np.count_nonzero(mask))
    if count == 0:
        return mask, pages[:0], NO_DIGEST
    data = pages if count == len(pages) else pages[mask]
    return mask, data, xxh3_128(data.data)


def encode(pages: Bytes, settings: PacketSettings) -> EncodedPacket:
    """Return ``(n, 4096)`` pages as a packet; ``payload`` may share their memory."""
    return encode_data(*summarise(pages), settings)


def encode_data(mask: Mask, data: Bytes, digest: bytes, settings: PacketSettings) -> EncodedPacket:
    """Return what :func:`summarise` said of a packet's pages as that packet."""
    count = len(data)
    if count == 0:
        return EncodedPacket(mask, Encoding.EMPTY, b"", 0, 0, digest)
    stream = (
        None
        if _looks_random(data)
        else deflate.compress(data, settings.level, settings.window_bits)
    )
    if stream is not None and -(-len(stream) // PAGE_SIZE) < count:
        checksum = crc32(stream)
        return EncodedPacket(mask, Encoding.DEFLATE, stream, len(stream), checksum, digest)
    return EncodedPacket(mask, Encoding.RAW, data, data.nbytes, crc32(data), digest)


def decode(packet: StoredPacket, stored: bytes, window_bits: int) -> Bytes:
    """
    Return a packet's data pages, in order, as read-only ``(n, 4096)``.

    :param packet: what its checked record says
    :raises CorruptSnapshotError: they are not what the digest says
    """
    plain = stored
    if packet.encoding == Encoding.DEFLATE:
        try:
            plain = deflate.decompress(stored, packet.data_pages * PAGE_SIZE, window_bits)
        except CorruptSnapshotError as error:
            error.packet = packet.packet
            raise
    digest = xxh3_128(plain)
    if digest != packet.digest:
        message = f"digest of the page contents is {packet.digest.hex()}, computed {digest.hex()}"
        raise CorruptSnapshotError(message, packet=packet.packet)
    return np.frombuffer(plain, np.uint8).reshape(packet.data_pages, PAGE_SIZE)


def _looks_random(data: Bytes) -> bool:
    # A histogram of 256 bytes costs 5 us where a packet's compression costs 1,800; only what
    # passes for random there is tried on a few pages.
    # The odd step keeps clear of what programs align.
    flat = data.reshape(-1)
    sample = flat[:: flat.size // _SAMPLE_BYTES - 1][:_SAMPLE_BYTES]
    if len(set(sample.tobytes())) < _SAMPLE_DISTINCT:
        return False
    step = max(1, len(data) // _SAMPLE_PAGES)
    tried = np.ascontiguousarray(data[::step][:_SAMPLE_PAGES])
    return len(deflate.compress(tried, 1, 15)) > tried.nbytes * 15 // 16
