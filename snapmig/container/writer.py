"""
Parent side of writing a snapshot: places first, the commit last.

The order: an empty partial file, packets and records by the workers, attachments, sync, the
superblock as commit record, sync, rename. Until the superblock is written the file starts with
zeros, so no reader mistakes it for a snapshot.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any, NamedTuple

import numpy as np

from snapmig.architectures import Architecture
from snapmig.checksums import crc32
from snapmig.container.format import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    SUPERBLOCK_SIZE,
    Layout,
    Superblock,
    align_up,
    page_digests_size,
    record_size,
)
from snapmig.container.index import Records, record_dtype
from snapmig.container.slots import SlotPlan
from snapmig.container.tables import (
    PIECE_ENTRY_SIZE,
    AttachmentEntry,
    pack_attachments,
    pack_blocks,
    pack_pieces,
)
from snapmig.geometry import Geometry, RamBlock
from snapmig.stores.destination import Destination
from snapmig.stores.location import Location
from snapmig.stores.opening import create
from snapmig.system.files import Buffer, descriptor_path, pread_all

__all__ = ("SnapshotWriter", "WrittenSnapshot")

_HASH_STEP = 1 << 20


class WrittenSnapshot(NamedTuple):
    """A committed snapshot: its id, its length and its space on the filesystem, in bytes."""

    snapshot_id: bytes
    file_size: int
    disk_size: int


class SnapshotWriter:
    """
    A snapshot under a temporary name until :meth:`commit`.

    :param path: the final name, or the object to create, which must be packed
    :param file: the partial file, if it is shared with other writers
    :param page_digests: store the digest of each page
    :raises NoSpaceError: not even the tables fit
    :raises StoreError: object storage can't be reached
    """

    def __init__(
        self,
        path: Location,
        geometry: Geometry,
        layout: Layout,
        window_bits: int,
        file: Destination | None = None,
        *,
        page_digests: bool = False,
    ) -> None:
        self._geometry = geometry
        self._layout = layout
        self._window_bits = window_bits
        self._block_table = pack_blocks(geometry.blocks)
        self._attachments: list[AttachmentEntry] = []
        index_offset = align_up(SUPERBLOCK_SIZE + len(self._block_table))
        index_size = geometry.packet_count * record_size(geometry.packet_size)
        digests_offset = align_up(index_offset + index_size)
        digests_size = geometry.packet_count * page_digests_size(geometry.packet_size)
        alignment = geometry.packet_size if layout == Layout.FIXED else align_up(1)
        data_offset = align_up(digests_offset + page_digests * digests_size, alignment)
        fixed_size = geometry.packet_count * geometry.packet_size
        self._file = file or create(path, data_offset + geometry.ram_size, data_offset)
        self._remote = self._file.remote
        self.plan = SlotPlan(
            path=descriptor_path(self._file.fd),
            layout=layout,
            packet_size=geometry.packet_size,
            index_offset=index_offset,
            data_offset=data_offset,
            shown=self._file.shown,
            needed=self._file.needed,
            to_disk=not self._remote,
            page_digests_offset=digests_offset if page_digests else 0,
        )
        self._end = data_offset + (fixed_size if layout == Layout.FIXED else 0)
        self._index_size = index_size

    def __enter__(self) -> SnapshotWriter:
        try:
            self._file.resize(self._end)
            self._file.write(self._block_table, SUPERBLOCK_SIZE)
        except BaseException:
            self._file.__exit__()
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        self._file.__exit__(*exc)

    @property
    def keeps_holes(self) -> bool:
        """True if the destination's filesystem keeps holes, tested on the file itself."""
        facts = os.fstat(self._file.fd)
        return facts.st_blocks * 512 < max(facts.st_size // 2, 1 << 20)

    @property
    def least_size(self) -> int:
        """Smallest possible size of the snapshot in bytes, for any contents."""
        if self._layout == Layout.FIXED and not self.keeps_holes:
            return self._end
        return SUPERBLOCK_SIZE + len(self._block_table) + self._index_size

    @property
    def end(self) -> int:
        """Offset after the last place assigned so far."""
        return self._end

    @property
    def has_room(self) -> bool:
        """
        True if workers may continue: the upload to object storage is not too far behind.

        :raises StoreError: the upload failed
        """
        return self._file.has_room

    def written_records(self, first: int, count: int) -> Records:
        """Return the records of consecutive packets as they are now, unchecked."""
        dtype = record_dtype(self.plan.packet_size)
        offset = self.plan.index_offset + first * dtype.itemsize
        return np.frombuffer(pread_all(self._file.fd, count * dtype.itemsize, offset), dtype)

    def advance(self, end: int) -> None:
        """Note that all packets' bytes up to an offset are final."""
        self._file.advance(end)

    def sync(self) -> None:
        """Wait until everything written so far is on stable storage."""
        self._file.sync()

    def end_packed_data(self, end: int) -> None:
        """Set the end of the packets of a packed snapshot; attachments follow there."""
        self._end = end

    def append(self, data: Buffer) -> None:
        """Write bytes of an attachment after everything else."""
        self._file.write(data, self._end)
        self._end += memoryview(data).nbytes

    def add_attachment(self, entry: AttachmentEntry) -> None:
        """Add a table entry for the bytes just appended."""
        self._attachments.append(entry)

    def commit(
        self,
        *,
        data_end: int,
        encodings: int,
        force: bool,
        created_ns: int | None = None,
        parent: Superblock | None = None,
        blocks: tuple[RamBlock, ...] | None = None,
        architecture: Architecture | None = None,
    ) -> WrittenSnapshot:
        """
        Turn the written bytes into a snapshot under its final name.

        :param data_end: offset after the last packet's place
        :param encodings: bit set of the encodings in use
        :param created_ns: time at which the RAM was in this state, default now
        :param parent: superblock of the parent snapshot
        :param blocks: the RAM blocks with the pieces known by now; default: as before
        :param architecture: the guest's processors
        :raises NoSpaceError: the filesystem is full after all
        :raises DestinationExistsError: the name was taken meanwhile, and ``force`` is not set
        """
        table = pack_attachments(tuple(self._attachments))
        table_offset = align_up(self._end, 8)
        pieces = pack_pieces(self._geometry.blocks if blocks is None else blocks)
        self._file.write(table + pieces, table_offset)
        pieces_offset = table_offset + len(table)
        file_size = pieces_offset + len(pieces)
        self._file.resize(file_size)
        superblock = Superblock(
            snapshot_id=os.urandom(16),
            parent_id=bytes(16) if parent is None else parent.snapshot_id,
            parent_digest=bytes(32) if parent is None else parent.index_digest,
            file_size=file_size,
            created_ns=time.time_ns() if created_ns is None else created_ns,
            encodings=encodings,
            packet_size=self._geometry.packet_size,
            record_size=record_size(self._geometry.packet_size),
            layout=self._layout,
            window_bits=self._window_bits,
            packet_count=self._geometry.packet_count,
            index_offset=self.plan.index_offset,
            index_digest=self._index_digest(),
            data_offset=self.plan.data_offset,
            data_size=data_end - self.plan.data_offset,
            block_table_offset=SUPERBLOCK_SIZE,
            block_count=len(self._geometry.blocks),
            block_table_checksum=crc32(self._block_table),
            attachment_table_offset=table_offset,
            attachment_count=len(self._attachments),
            attachment_table_checksum=crc32(table),
            page_digests_offset=self.plan.page_digests_offset,
            piece_table_offset=pieces_offset,
            piece_count=len(pieces) // PIECE_ENTRY_SIZE,
            piece_table_checksum=crc32(pieces),
        )
        if architecture is not None:
            superblock = superblock._replace(
                machine=architecture.machine,
                machine_class=architecture.bits // 32,
                machine_data=LITTLE_ENDIAN if architecture.little else BIG_ENDIAN,
            )
        raw = superblock.pack()
        Superblock.unpack(raw)  # our own mistake must not become an unreadable file
        self._file.sync()
        self._file.write(raw, 0)
        self._file.sync()
        disk_size = file_size if self._remote else os.fstat(self._file.fd).st_blocks * 512
        self._file.commit(force=force)
        return WrittenSnapshot(superblock.snapshot_id, file_size, disk_size)

    def _index_digest(self) -> bytes:
        digest = hashlib.sha256()
        for offset in range(0, self._index_size, _HASH_STEP):
            step = min(_HASH_STEP, self._index_size - offset)
            digest.update(pread_all(self._file.fd, step, self.plan.index_offset + offset))
        return digest.digest()
