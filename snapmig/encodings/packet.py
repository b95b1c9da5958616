"""
One packet's pages, and what of them is stored.

Zero pages are not stored. The others, in order, are compressed together, or stored as they are
where that takes no more 4 KiB blocks; a packet never outgrows its slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from snapmig.container.format import Encoding
from snapmig.encodings import deflate
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Mask, data_mask
from snapmig.sums import crc32, xxh3_128
from snapmig.system.files import Buffer

__all__ = ("EncodedPacket", "Summary", "looks_random", "pack", "size_limit", "summarise")

NO_DIGEST = bytes(16)
"""In place of a digest where a packet has no data page."""

_SAMPLE_BYTES = 256
_SAMPLE_DISTINCT = 140
"""256 random bytes have 162 different values on average and fewer than 140 practically never;
machine code, text and tables have 20 to 120."""
_SAMPLE_PAGES = 4


class Summary(NamedTuple):
    """
    What a packet's pages are.

    :param mask: which of them are not zero
    :param data: those, as ``(n, 4096)``
    :param digest: of those
    """

    mask: Mask
    data: Bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """
    A packet ready to be stored.

    :param mask: which of its pages are data, the others being zero
    :param payload: the stored bytes: one stream, or the data pages as ``(n, 4096)``; good until
        the next packet is encoded
    """

    mask: Mask
    encoding: Encoding
    payload: Buffer
    stored_size: int
    stored_checksum: int
    digest: bytes

    def kept(self) -> EncodedPacket:
        """Return a packet that stays good while others are encoded."""
        if self.encoding in (Encoding.EMPTY, Encoding.RAW) or isinstance(self.payload, bytes):
            return self
        return replace(self, payload=bytes(self.payload))


def summarise(pages: Bytes) -> Summary:
    """Return what ``(n, 4096)`` pages are; ``data`` shares their memory where none is zero."""
    mask = data_mask(pages)
    count = int(np.count_nonzero(mask))
    if count == 0:
        return Summary(mask, pages[:0], NO_DIGEST)
    data = pages if count == len(pages) else pages[mask]
    return Summary(mask, data, xxh3_128(data.data))


def size_limit(data: Bytes) -> int:
    """Return the most bytes of a stream that takes fewer 4 KiB blocks than the pages it is of."""
    return data.nbytes - PAGE_SIZE


def pack(summary: Summary, encoding: Encoding, stream: Buffer | None) -> EncodedPacket:
    """Return a packet of a stream, or of the pages as they are where that is as small."""
    mask, data, digest = summary
    if len(data) == 0:
        return EncodedPacket(mask, Encoding.EMPTY, b"", 0, 0, digest)
    if stream is not None and len(stream) <= size_limit(data):
        return EncodedPacket(mask, encoding, stream, len(stream), crc32(stream), digest)
    return EncodedPacket(mask, Encoding.RAW, data, data.nbytes, crc32(data), digest)


def looks_random(data: Bytes) -> bool:
    """
    Return whether compressing pages is not worth a try, from a sample of them.

    A histogram of 256 bytes costs 5 us where a packet's compression costs 1,800; only what passes
    for random there is tried on a few pages. The odd step keeps clear of what programs align.
    """
    flat = data.reshape(-1)
    sample = flat[:: flat.size // _SAMPLE_BYTES - 1][:_SAMPLE_BYTES]
    if len(set(sample.tobytes())) < _SAMPLE_DISTINCT:
        return False
    step = max(1, len(data) // _SAMPLE_PAGES)
    tried = np.ascontiguousarray(data[::step][:_SAMPLE_PAGES])
    return len(deflate.compress(tried, 1, 15)) > tried.nbytes * 15 // 16
