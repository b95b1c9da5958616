"""
The packets of a finished snapshot: records and stored bytes.

Nothing is trusted before it is checked: each record before the bytes it points to, the stored bytes
before decoding. The rest, decoding and the digest, is left to the encodings.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from snapmig.checksums import crc32
from snapmig.container.format import Layout
from snapmig.container.head import SnapshotHead
from snapmig.container.index import (
    Packets,
    Record,
    Records,
    StoredPacket,
    unpack_records,
)
from snapmig.container.index_reader import IndexReader
from snapmig.container.page_digests import PageDigestReader
from snapmig.container.record_checks import check_record, records_sound
from snapmig.container.sealed import PacketSealer
from snapmig.container.slots import read_stored, stored_ranges
from snapmig.errors import CorruptSnapshotError, KeyRequiredError, SnapmigError, UnreadableError
from snapmig.geometry import PAGE_SIZE, PacketPlace

__all__ = ("SnapshotFile",)


class SnapshotFile(SnapshotHead):
    """
    An open snapshot with its packets, opened as :class:`SnapshotHead`.

    :ivar index: its records, not checked
    """

    @cached_property
    def index(self) -> IndexReader:
        """Its records, not checked."""
        return IndexReader(self._source, self.superblock, self.shown)

    @cached_property
    def page_digests(self) -> PageDigestReader | None:
        """The digest of each page, None if the snapshot has none."""
        block = self.superblock
        if not block.page_digests_offset:
            return None
        return PageDigestReader(
            self._source.read,
            block.page_digests_offset,
            block.packet_size,
            block.packet_count,
            self.shown,
            self._sealer,
        )

    @cached_property
    def _sealer(self) -> PacketSealer | None:
        if self.key is None:
            return None
        return PacketSealer(self.key, self.superblock.packet_size // PAGE_SIZE)

    def keep_page_digests(self) -> None:
        """Load all page digests, also for workers, before they are read in any order."""
        if self.page_digests is not None:
            self._source.keep(*self.page_digests.place)

    def packet(self, place: PacketPlace) -> StoredPacket:
        """
        Return a packet's record, after every check possible without other bytes.

        :raises CorruptSnapshotError: it is damaged, or describes another packet, or points
            elsewhere
        """
        records = self.index.records(place.packet, 1)
        self._check(records[0], place)
        if self._sealer is not None:
            self._sealer.hide_digests(records)
        return unpack_records(records)[0]

    def _check(self, record: Record, place: PacketPlace) -> None:
        try:
            self._check_one(record, place)
        except SnapmigError as error:
            error.path = self.shown
            raise

    def _check_one(self, record: Record, place: PacketPlace) -> None:
        block = self.superblock
        start, stop = block.data_offset, block.data_offset + block.data_size
        if self.layout == Layout.FIXED:
            start = block.data_offset + place.packet * block.packet_size
            stop = start + block.packet_size
        check_record(record, place, (start, stop), **self._has)
        if self.layout == Layout.FIXED and record["stored_size"] and record["offset"] != start:
            message = f"stored bytes are at {int(record['offset']):#x}, expected {start:#x}"
            raise CorruptSnapshotError(message, packet=place.packet)

    def checked_records(self, first: int, count: int) -> Records:
        """
        Return a private copy of the records of consecutive packets, each checked.

        :raises CorruptSnapshotError: one is damaged, or describes another packet, or points
            elsewhere
        """
        records = self.index.records(first, count)
        return self._all_checked(records, np.arange(first, first + len(records)))

    def checked_records_of(self, packets: Packets) -> Records:
        """
        Return the records of some packets, each checked, and no others.

        :param packets: their numbers, in order and close to each other
        :raises CorruptSnapshotError: see :meth:`checked_records`
        """
        return self._all_checked(self.index.records_of(packets), packets)

    def _all_checked(self, records: Records, packets: Packets) -> Records:
        block = self.superblock
        distance = block.packet_size if self.layout == Layout.FIXED else 0
        places = (block.data_offset, block.data_offset + block.data_size, distance)
        # In a block's last packet nothing may follow the block's end: check that one alone.
        at = np.searchsorted(packets, self._last_packets)
        at = at[at < len(packets)]
        suspects = at[packets[at] == self._last_packets[: len(at)]].tolist()
        if not records_sound(records, packets, places, **self._has):
            suspects = list(range(len(packets)))
        for number in suspects:
            self._check(records[number], self.geometry.place(int(packets[number])))
        if self._sealer is not None:
            self._sealer.hide_digests(records)
        return records

    @cached_property
    def _last_packets(self) -> Packets:
        # Of each block, in order.
        blocks = range(self.superblock.block_count)
        return np.array([self.geometry.block_packets(each).stop - 1 for each in blocks])

    @cached_property
    def _has(self) -> dict[str, bool]:
        # Limits for records, as their checks take them.
        return {
            "has_parent": self.has_parent,
            "has_page_digests": bool(self.superblock.page_digests_offset),
            "sealed": bool(self.superblock.sealing),
        }

    def prefetch(self, packets: Sequence[StoredPacket]) -> None:
        """Announce the packets to be read next."""
        if self._source.remote:
            stored = [packet for packet in packets if packet.stored_size]
            ranges = [part for packet in stored for part in stored_ranges(self.layout, packet)]
            self._source.prefetch(ranges)

    def count_arrivals(self, add: Callable[[int], None]) -> None:
        """Tell a function of prefetched bytes as they arrive, in any thread."""
        self._source.count_arrivals(add)

    def limit_requests(self, count: int) -> None:
        """Have no more announced ranges fetched at once, from now on."""
        self._source.limit_requests(count)

    def stored(self, packet: StoredPacket) -> bytes:
        """
        Return what a packet's encoding made, from stored bytes checked against the record.

        :raises CorruptSnapshotError: the file ends too early, a wrong checksum, or other bytes than
            those that were sealed
        """
        data = self.checked_stored(packet)
        if self._sealer is not None:
            data = self._sealer.open(packet, data)
        elif self.is_locked:
            raise KeyRequiredError("is encrypted and needs a key")
        return data

    def checked_stored(self, packet: StoredPacket) -> bytes:
        """
        Return a packet's stored bytes as they are, checked against the record.

        :raises CorruptSnapshotError: the file ends too early, or a wrong checksum
        :raises UnreadableError: the disk has an error there
        """
        number, offset = packet.packet, packet.offset
        try:
            data = read_stored(self._source.read, self.layout, packet)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            message = f"can't be read: {error.strerror}"
            raise UnreadableError(message, packet=number, offset=offset) from error
        if len(data) != packet.stored_size:
            message = f"file ends after {len(data)} of {packet.stored_size} stored bytes"
            raise CorruptSnapshotError(message, packet=number, offset=offset)
        computed = crc32(data)
        if computed != packet.stored_checksum:
            message = (
                f"checksum of the stored bytes is {packet.stored_checksum:#010x}, "
                f"computed {computed:#010x}"
            )
            raise CorruptSnapshotError(message, packet=number, offset=offset)
        return data
