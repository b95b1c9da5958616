"""
A finished snapshot, read in the order prescribed by docs/format.md.

Nothing is trusted before it is checked: the superblock against its checksum and limits, every place
against the file's real size, each record before the bytes it points to, the stored bytes before
decoding. The rest, decoding and the digest, is left to the encodings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property

from snapmig.architectures import Architecture
from snapmig.checksums import crc32
from snapmig.container.format import (
    LITTLE_ENDIAN,
    MAX_ATTACHMENTS,
    SUPERBLOCK_SIZE,
    Encoding,
    Layout,
    Superblock,
    page_digests_size,
)
from snapmig.container.index import (
    Record,
    Records,
    StoredPacket,
    check_record,
    records_sound,
    unpack_records,
)
from snapmig.container.index_reader import IndexReader
from snapmig.container.page_digests import PageDigestReader
from snapmig.container.slots import read_stored, stored_ranges
from snapmig.container.tables import (
    ATTACHMENT_ENTRY_SIZE,
    BLOCK_ENTRY_SIZE,
    PIECE_ENTRY_SIZE,
    AttachmentEntry,
    unpack_attachments,
    unpack_blocks,
    unpack_pieces,
)
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.geometry import Geometry, PacketPlace
from snapmig.stores.opening import open_source
from snapmig.stores.source import ByteSource, SourcePlan

__all__ = ("SnapshotFile",)

_ATTACHMENT_STEP = 4 << 20
"""Bytes of an attachment read at once."""


class SnapshotFile:
    """
    An open snapshot: superblock and tables checked, index and packets still unread.

    :ivar index: its records, not checked

    :param path: a path, an ``s3://`` URL, or a file open in another process
    :param shown: display name, if other than the path
    :raises CorruptSnapshotError: not a snapshot, truncated, or damaged in its tables
    :raises UnsupportedError: needs a feature unknown to this reader
    """

    def __init__(self, path: str | SourcePlan, shown: str | None = None) -> None:
        self.shown = str(path) if shown is None else shown
        try:
            with ExitStack() as stack:
                self._source: ByteSource = open_source(path)
                stack.callback(self._source.close)
                self._load()
                stack.pop_all()
        except SnapmigError as error:
            error.path = self.shown
            raise

    def _load(self) -> None:
        self.superblock = block = Superblock.unpack(self._source.read(0, SUPERBLOCK_SIZE))
        self._check_places(self._source.size)
        blocks = unpack_blocks(self._table("block", block.block_count * BLOCK_ENTRY_SIZE))
        pieces = self._table("piece", block.piece_count * PIECE_ENTRY_SIZE)
        self.geometry = Geometry(unpack_pieces(pieces, blocks), block.packet_size)
        self._check_counts()
        size = min(block.attachment_count, MAX_ATTACHMENTS) * ATTACHMENT_ENTRY_SIZE
        self.attachments = unpack_attachments(
            self._table("attachment", size),
            start=block.data_offset + block.data_size,
            stop=block.attachment_table_offset,
        )
        self.index = IndexReader(self._source, block, self.shown)

    def _table(self, name: str, size: int) -> bytes:
        offset = getattr(self.superblock, f"{name}_table_offset")
        raw = self._source.read(offset, size) if size else b""
        computed, expected = crc32(raw), getattr(self.superblock, f"{name}_table_checksum")
        if computed != expected:
            message = f"{name} table's checksum is {expected:#010x}, computed {computed:#010x}"
            raise CorruptSnapshotError(message)
        return raw

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> SnapshotFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def is_remote(self) -> bool:
        """True if each read takes a round trip over a network."""
        return self._source.remote

    @property
    def disk_size(self) -> int:
        """Space used where it is stored, in bytes."""
        return self._source.disk_size

    def plan(self) -> SourcePlan:
        """
        Return a plan for other processes to open this very snapshot.

        It must stay open here meanwhile.
        """
        block = self.superblock
        if self._source.remote:  # once, and not in every worker
            self._source.keep(0, SUPERBLOCK_SIZE)
            self._source.keep(block.block_table_offset, block.block_count * BLOCK_ENTRY_SIZE)
            self._source.keep(block.index_offset, block.packet_count * block.record_size)
            size = block.attachment_count * ATTACHMENT_ENTRY_SIZE
            self._source.keep(block.attachment_table_offset, size)
            self._source.keep(block.piece_table_offset, block.piece_count * PIECE_ENTRY_SIZE)
        return self._source.plan()

    @cached_property
    def layout(self) -> Layout:
        """Layout of the packets."""
        return Layout(self.superblock.layout)

    @cached_property
    def has_parent(self) -> bool:
        """True if pages may be taken from another snapshot."""
        return any(self.superblock.parent_id)

    @cached_property
    def architecture(self) -> Architecture | None:
        """The guest's processors, None if not known."""
        block = self.superblock
        if not block.machine:
            return None
        return Architecture(
            block.machine, 32 * block.machine_class, little=block.machine_data == LITTLE_ENDIAN
        )

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
        )

    def keep_page_digests(self) -> None:
        """Load all page digests, also for workers, before they are read in any order."""
        if self.page_digests is not None:
            self._source.keep(*self.page_digests.place)

    @property
    def has_deflate(self) -> bool:
        """True if packets may be deflate streams."""
        return bool(self.superblock.encodings >> Encoding.DEFLATE & 1)

    def packet(self, place: PacketPlace) -> StoredPacket:
        """
        Return a packet's record, after every check possible without other bytes.

        :raises CorruptSnapshotError: it is damaged, or describes another packet, or points
            elsewhere
        """
        records = self.index.records(place.packet, 1)
        self._check(records[0], place)
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
        block = self.superblock
        distance = block.packet_size if self.layout == Layout.FIXED else 0
        places = (block.data_offset, block.data_offset + block.data_size, distance)
        # In a block's last packet nothing may follow the block's end: check that one alone.
        ends = (self.geometry.block_packets(n).stop - 1 - first for n in range(block.block_count))
        suspects = [end for end in ends if 0 <= end < count]
        if not records_sound(records, first, places, **self._has):
            suspects = list(range(count))
        for number in suspects:
            self._check(records[number], self.geometry.place(first + number))
        return records

    @cached_property
    def _has(self) -> dict[str, bool]:
        # Limits for records, as their checks take them.
        return {
            "has_parent": self.has_parent,
            "has_page_digests": bool(self.superblock.page_digests_offset),
        }

    def prefetch(self, packets: Sequence[StoredPacket]) -> None:
        """Announce the packets to be read next."""
        if self._source.remote:
            stored = [packet for packet in packets if packet.stored_size]
            ranges = [part for packet in stored for part in stored_ranges(self.layout, packet)]
            self._source.prefetch(ranges)

    def stored(self, packet: StoredPacket) -> bytes:
        """
        Return a packet's stored bytes, checked against the record.

        :raises CorruptSnapshotError: the file ends too early, or a wrong checksum
        """
        data = read_stored(self._source.read, self.layout, packet)
        number, offset = packet.packet, packet.offset
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

    def written(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the ranges between two offsets that are not holes, as start and stop."""
        return self._source.written(start, stop)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes without a checksum, fewer only at the end of the file."""
        return self._source.read(offset, length)

    def attachment_pieces(self, entry: AttachmentEntry) -> Iterator[bytes]:
        """
        Yield an attachment's stored bytes in pieces; its SHA-256 is that of the contents.

        :raises UnsupportedError: an encoding unknown to this reader
        :raises CorruptSnapshotError: the file ends inside it
        """
        if entry.encoding not in (Encoding.RAW, Encoding.DEFLATE):
            message = f"attachment {entry.name!r} has the encoding {entry.encoding}"
            raise UnsupportedError(message, path=self.shown)
        stop = entry.offset + entry.stored_size
        for at in range(entry.offset, stop, _ATTACHMENT_STEP):
            length = min(_ATTACHMENT_STEP, stop - at)
            piece = self._source.read(at, length)
            if len(piece) != length:
                message = f"file ends inside attachment {entry.name!r}"
                raise CorruptSnapshotError(message, path=self.shown, offset=entry.offset)
            yield piece

    def _check_places(self, real_size: int) -> None:
        block = self.superblock
        if block.file_size != real_size:
            kind = "truncated" if real_size < block.file_size else "longer than it should be"
            message = f"file has {real_size} bytes, the superblock says {block.file_size}: {kind}"
            raise CorruptSnapshotError(message)
        index_size = block.packet_count * block.record_size
        table_end = block.block_table_offset + block.block_count * BLOCK_ENTRY_SIZE
        attachments_size = block.attachment_count * ATTACHMENT_ENTRY_SIZE
        attachments_end = block.attachment_table_offset + attachments_size
        index_end = block.index_offset + index_size
        digests_at = block.page_digests_offset or index_end
        digests_size = block.packet_count * page_digests_size(block.packet_size)
        digests_end = digests_at + (digests_size if block.page_digests_offset else 0)
        data_end = block.data_offset + block.data_size
        order = (
            ("block table", SUPERBLOCK_SIZE, block.block_table_offset),
            ("index", table_end, block.index_offset),
            ("first page digest", index_end, digests_at),
            ("data", digests_end, block.data_offset),
            ("attachment table", data_end, block.attachment_table_offset),
            ("piece table", attachments_end, block.piece_table_offset),
            ("end", block.piece_table_offset + block.piece_count * PIECE_ENTRY_SIZE, real_size),
        )
        for name, least, found in order:
            if found < least:
                message = f"{name} is at {found:#x}, expected {least:#x} or later"
                raise CorruptSnapshotError(message)

    def _check_counts(self) -> None:
        block, geometry = self.superblock, self.geometry
        if geometry.packet_count != block.packet_count:
            message = (
                f"index has {block.packet_count} packets, "
                f"the RAM blocks have {geometry.packet_count}"
            )
            raise CorruptSnapshotError(message)
        fixed_size = block.packet_count * block.packet_size
        if self.layout == Layout.FIXED and block.data_size != fixed_size:
            message = f"data has {block.data_size} bytes, expected {fixed_size}"
            raise CorruptSnapshotError(message)
