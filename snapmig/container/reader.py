"""
A finished snapshot, read in the order that docs/format.md prescribes.

Nothing is trusted before it was checked: the superblock against its checksum and limits, every
place against the file's real size, each record before the bytes that it points to, the stored
bytes before they are decoded. What comes after (decoding and the digest) is the encodings' work.
"""

from __future__ import annotations

import hashlib
import os
import stat
import weakref
from functools import cached_property
from types import TracebackType

import numpy as np

from snapmig.container.format import (
    MAX_ATTACHMENTS,
    SUPERBLOCK_SIZE,
    Encoding,
    Layout,
    Superblock,
)
from snapmig.container.index import (
    Record,
    Records,
    StoredPacket,
    check_record,
    record_dtype,
    records_sound,
    unpack_records,
)
from snapmig.container.slots import read_stored
from snapmig.container.tables import (
    ATTACHMENT_ENTRY_SIZE,
    BLOCK_ENTRY_SIZE,
    AttachmentEntry,
    unpack_attachments,
    unpack_blocks,
)
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.geometry import Geometry, PacketPlace
from snapmig.sums import crc32
from snapmig.system.files import descriptor_path, pread_all

__all__ = ("SnapshotFile",)


class SnapshotFile:
    """
    An open snapshot: superblock, tables and index checked, packets still to be read.

    :param path: where it is; ``/proc/PID/fd/N`` for a worker
    :param shown: its name in messages, when that is another one
    :raises CorruptSnapshotError: not a snapshot, truncated, or damaged in its tables
    :raises UnsupportedError: needs what this reader does not have
    """

    def __init__(self, path: str, shown: str | None = None) -> None:
        self.shown = path if shown is None else shown
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._closing = weakref.finalize(self, os.close, self._fd)  # a worker's has no other end
        self._closing.atexit = False
        try:
            self._load()
        except SnapmigError as error:
            self._closing()
            error.path = self.shown
            raise
        except BaseException:
            self._closing()
            raise

    def _load(self) -> None:
        facts = os.fstat(self._fd)
        if not stat.S_ISREG(facts.st_mode):
            raise SnapmigError("not a regular file")
        self.disk_size = facts.st_blocks * 512
        self.superblock = Superblock.unpack(pread_all(self._fd, SUPERBLOCK_SIZE, 0))
        self._check_places(facts.st_size)
        self.geometry = Geometry(self._load_blocks(), self.superblock.packet_size)
        self._check_counts()
        self.attachments = self._load_attachments()
        self.records = self._map_index()

    def close(self) -> None:
        """Close the file; records that are still referred to stay mapped."""
        self._closing()
        self._fd = -1

    def __enter__(self) -> SnapshotFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path_for_workers(self) -> str:
        """A path by which other processes open this very file."""
        return descriptor_path(self._fd)

    @cached_property
    def layout(self) -> Layout:
        """How packets are placed."""
        return Layout(self.superblock.layout)

    @cached_property
    def has_parent(self) -> bool:
        """Whether pages may be taken from another snapshot."""
        return any(self.superblock.parent_id)

    @property
    def has_deflate(self) -> bool:
        """Whether packets may be deflate streams."""
        return bool(self.superblock.encodings >> Encoding.DEFLATE & 1)

    def packet(self, place: PacketPlace) -> StoredPacket:
        """
        Return what the index says of a packet, after every check that needs no other bytes.

        :raises CorruptSnapshotError: it is damaged, or of another packet, or points elsewhere
        """
        records = self.records[place.packet : place.packet + 1].copy()
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
        check_record(record, place, (start, stop), has_parent=self.has_parent)
        if self.layout == Layout.FIXED and record["stored_size"] and record["offset"] != start:
            message = f"stored bytes are at {int(record['offset']):#x}, expected {start:#x}"
            raise CorruptSnapshotError(message, packet=place.packet)

    def checked_records(self, first: int, count: int) -> Records:
        """
        Return a private copy of the records of packets that follow each other, each checked.

        :raises CorruptSnapshotError: one is damaged, or of another packet, or points elsewhere
        """
        records = self.records[first : first + count].copy()
        block = self.superblock
        distance = block.packet_size if self.layout == Layout.FIXED else 0
        places = (block.data_offset, block.data_offset + block.data_size, distance)
        # In a block's last packet nothing may stand after the end: a question to that one alone.
        ends = (self.geometry.block_packets(n).stop - 1 - first for n in range(block.block_count))
        suspects = [end for end in ends if 0 <= end < count]
        if not records_sound(records, first, places, has_parent=self.has_parent):
            suspects = list(range(count))
        for number in suspects:
            self._check(records[number], self.geometry.place(first + number))
        return records

    def stored(self, packet: StoredPacket) -> bytes:
        """
        Return a packet's stored bytes, checked against the record.

        :raises CorruptSnapshotError: the file ends too early, or a wrong checksum
        """
        data = read_stored(self._fd, self.layout, packet)
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

    def stored_attachment(self, entry: AttachmentEntry) -> bytes:
        """
        Return an attachment's stored bytes; its SHA-256 is of the contents.

        :raises UnsupportedError: an encoding that this reader does not have
        """
        if entry.encoding not in (Encoding.RAW, Encoding.DEFLATE):
            message = f"attachment {entry.name!r} has the encoding {entry.encoding}"
            raise UnsupportedError(message, path=self.shown)
        data = pread_all(self._fd, entry.stored_size, entry.offset)
        if len(data) != entry.stored_size:
            message = f"file ends inside attachment {entry.name!r}"
            raise CorruptSnapshotError(message, path=self.shown, offset=entry.offset)
        return data

    def check_index_digest(self) -> None:
        """
        Check the index as a whole against the superblock.

        :raises CorruptSnapshotError: it is not the index that was committed
        """
        digest = hashlib.sha256()
        for at in range(0, len(self.records), 8192):
            digest.update(self.records[at : at + 8192].tobytes())
        if digest.digest() != self.superblock.index_digest:
            message = (
                f"index digest is {self.superblock.index_digest.hex()}, "
                f"computed {digest.hexdigest()}"
            )
            raise CorruptSnapshotError(message, path=self.shown)

    def _check_places(self, real_size: int) -> None:
        block = self.superblock
        if block.file_size != real_size:
            kind = "truncated" if real_size < block.file_size else "longer than it should be"
            message = f"file has {real_size} bytes, the superblock says {block.file_size}: {kind}"
            raise CorruptSnapshotError(message)
        index_size = block.packet_count * block.record_size
        table_end = block.block_table_offset + block.block_count * BLOCK_ENTRY_SIZE
        attachments_size = block.attachment_count * ATTACHMENT_ENTRY_SIZE
        data_end = block.data_offset + block.data_size
        order = (
            ("block table", SUPERBLOCK_SIZE, block.block_table_offset),
            ("index", table_end, block.index_offset),
            ("data", block.index_offset + index_size, block.data_offset),
            ("attachment table", data_end, block.attachment_table_offset),
            ("end", block.attachment_table_offset + attachments_size, real_size),
        )
        for name, least, found in order:
            if found < least:
                message = f"{name} is at {found:#x}, expected {least:#x} or later"
                raise CorruptSnapshotError(message)

    def _load_blocks(self) -> tuple:  # type: ignore[type-arg]
        block = self.superblock
        size = block.block_count * BLOCK_ENTRY_SIZE
        raw = pread_all(self._fd, size, block.block_table_offset)
        _check_table("block table", raw, block.block_table_checksum)
        return unpack_blocks(raw)

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

    def _load_attachments(self) -> tuple[AttachmentEntry, ...]:
        block = self.superblock
        size = min(block.attachment_count, MAX_ATTACHMENTS) * ATTACHMENT_ENTRY_SIZE
        raw = pread_all(self._fd, size, block.attachment_table_offset)
        _check_table("attachment table", raw, block.attachment_table_checksum)
        return unpack_attachments(
            raw, start=block.data_offset + block.data_size, stop=block.attachment_table_offset
        )

    def _map_index(self) -> Records:
        return np.memmap(
            descriptor_path(self._fd),
            dtype=record_dtype(self.superblock.packet_size),
            mode="r",
            offset=self.superblock.index_offset,
            shape=(self.superblock.packet_count,),
        ).view(np.ndarray)


def _check_table(name: str, raw: bytes, expected: int) -> None:
    computed = crc32(raw)
    if computed != expected:
        message = f"{name}'s checksum is {expected:#010x}, computed {computed:#010x}"
        raise CorruptSnapshotError(message)
