"""
The index of a snapshot as bytes of its file: digest, holes, and what is counted over all records.

It needs no numpy, whose import takes longer than ``info`` and ``chain`` have to do. It is read and
not mapped: truncating a mapped file ends the whole process, possibly the caller's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from snapmig.container.format import (
    RECORD_HEAD_SIZE,
    Encoding,
    PageKind,
    Superblock,
    record_size,
)
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.stores.source import ByteSource

__all__ = ("IndexCounts", "StoredIndex", "count_records")

READ_AT_ONCE = 1 << 20
"""Bytes of the index."""

_ENCODING_AT = 20
_STORED_SIZE_AT = 16


class IndexCounts(NamedTuple):
    """
    Sums over records.

    :param pages: number of pages of each kind; page places after the end of a block count as zero
    :param encodings: number of packets in each encoding
    :param stored_size: bytes of all packets
    """

    pages: tuple[int, ...]
    encodings: tuple[int, ...]
    stored_size: int

    @property
    def pages_in_use(self) -> int:
        """The number of pages other than zero."""
        return sum(self.pages) - self.pages[PageKind.ZERO]


class StoredIndex:
    """
    The index of one snapshot.

    :param shown: the snapshot's display name
    :ivar packet_pages: pages in a full packet
    """

    def __init__(self, source: ByteSource, block: Superblock, shown: str) -> None:
        self._source = source
        self._block = block
        self._shown = shown
        self._step = READ_AT_ONCE // block.record_size
        self._whole = False
        self._known: tuple[int, bytes] | None = None
        self.packet_pages = block.packet_size // PAGE_SIZE

    def raw_steps(self, packets: range | None = None) -> Iterator[tuple[int, bytes]]:
        """
        Yield all records, or those of some packets, part by part, each with its first packet.

        The last part read is kept, so that continuing from there reads nothing twice, but not the
        last of all: a chain may have many files.

        :raises CorruptSnapshotError: a record is in a hole of the file, or the file was cut
        """
        block, size = self._block, self._block.record_size
        packets = range(block.packet_count) if packets is None else packets
        if not self._whole:
            self.check_holes()
            self._source.keep(block.index_offset, block.packet_count * size)
            self._whole = True
        for start in range(packets.start - packets.start % self._step, packets.stop, self._step):
            known = self._known  # threads of a mount replace it
            if known is None or known[0] != start:
                known = self._known = start, self._read(start, self._step)
            first = max(start, packets.start)
            yield first, known[1][(first - start) * size : (packets.stop - start) * size]
        if packets.stop >= block.packet_count:
            self._known = None

    def _read(self, first: int, count: int) -> bytes:
        count = max(0, min(count, self._block.packet_count - first))
        size = self._block.record_size
        raw = self._source.read(self._block.index_offset + first * size, count * size)
        if len(raw) < count * size:
            message = "file ends inside the index: it was cut while it was read"
            raise self._corrupt(message, first + len(raw) // size)
        return raw

    def counts(self, packets: range | None = None) -> IndexCounts:
        """Return the sums over the records of some packets, by default of all."""
        steps = chain([b""], (raw for _, raw in self.raw_steps(packets)))
        parts = [count_records(raw, self._block.packet_size) for raw in steps]
        return IndexCounts(
            tuple(map(sum, zip(*(part.pages for part in parts), strict=True))),
            tuple(map(sum, zip(*(part.encodings for part in parts), strict=True))),
            sum(part.stored_size for part in parts),
        )

    def check_digest(self) -> None:
        """
        Compare the digest of the whole index with the superblock.

        :raises CorruptSnapshotError: it is not the index that was committed
        """
        digest = hashlib.sha256()
        for _, raw in self.raw_steps():
            digest.update(raw)
        if digest.digest() != self._block.index_digest:
            found = self._block.index_digest.hex()
            message = f"index digest is {found}, computed {digest.hexdigest()}"
            raise CorruptSnapshotError(message, path=self._shown)

    def check_holes(self) -> None:
        """
        Refuse records in holes: a hole can be as large as the RAM a file pretends to describe.

        :raises CorruptSnapshotError: the head of a record is in a hole, though it is never all
            zeros
        """
        start, size = self._block.index_offset, self._block.record_size
        hole, end = start, start + self._block.packet_count * size
        for data, after in chain(self._source.written(start, end), [(end, end)]):
            first = -(-(hole - start) // size)
            if start + first * size + RECORD_HEAD_SIZE <= data:
                raise self._corrupt("index record is in a hole of the file", first)
            hole = after

    def _corrupt(self, message: str, packet: int) -> SnapmigError:
        offset = self._block.index_offset + packet * self._block.record_size
        return CorruptSnapshotError(message, path=self._shown, packet=packet, offset=offset)


def count_records(raw: bytes, packet_size: int) -> IndexCounts:
    """
    Return the sums over stored records.

    Bytes of a field are slices with a step, and the kinds of all pages are one large integer.
    """
    pages = packet_size // PAGE_SIZE
    size = record_size(packet_size)
    encodings = raw[_ENCODING_AT::size]
    stored = (sum(raw[_STORED_SIZE_AT + byte :: size]) << 8 * byte for byte in range(4))
    first = RECORD_HEAD_SIZE
    kinds = b"".join(raw[at::size] for at in range(first, first + pages // 4))
    both_bits = int.from_bytes(kinds)
    lower_bits = (1 << 8 * len(kinds)) // 3  # 0x5555...
    low, high = both_bits & lower_bits, both_bits >> 1 & lower_bits
    delta = (low & high).bit_count()
    data, same = low.bit_count() - delta, high.bit_count() - delta
    return IndexCounts(
        (len(kinds) * 4 - data - same - delta, data, same, delta),
        tuple(map(encodings.count, Encoding)),
        sum(stored),
    )
