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
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from snapmig.architectures import Architecture
from snapmig.checksums import crc32
from snapmig.container.format import (
    BIG_ENDIAN,
    LITTLE_ENDIAN,
    SUPERBLOCK_SIZE,
    Layout,
    Sealing,
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
from snapmig.sealing.file_key import AttachmentParts, FileKey
from snapmig.sealing.key_table import COPIES, KEY_TABLE_SIZE, KeySlot, KeyTable
from snapmig.sealing.keyring import Seal
from snapmig.stores.destination import Destination
from snapmig.stores.location import Location
from snapmig.stores.opening import create
from snapmig.system.files import Buffer, descriptor_path, pread_all
from snapmig.system.libc import punch_hole

__all__ = ("SnapshotWriter", "WrittenSnapshot")

_HASH_STEP = 1 << 20


class WrittenSnapshot(NamedTuple):
    """
    A committed snapshot: its id, its length, its space on the filesystem, and its root.

    :param kept_parts: parts of an earlier upload that the server had; None for a file
    """

    snapshot_id: bytes
    file_size: int
    disk_size: int
    root: bytes
    kept_parts: int | None = None


class SnapshotWriter:
    """
    A snapshot under a temporary name until :meth:`commit`.

    :param path: the final name, or the object to create, which must be packed
    :param file: the partial file, if it is shared with other writers
    :param page_digests: store the digest of each page
    :param seal: seals it
    :param resume: the key of all settings, to go on with an earlier run that had the same
    :ivar resumed: the file has packets of an earlier run, for workers to check
    :ivar dropped: what an earlier run left can't be used
    :ivar is_remote: it goes to another host
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
        seal: Seal | None = None,
        resume: str | None = None,
    ) -> None:
        self._geometry = geometry
        self._layout = layout
        self._window_bits = window_bits
        self._block_table = pack_blocks(geometry.blocks)
        self._attachments: list[AttachmentEntry] = []
        self._blocks_at = SUPERBLOCK_SIZE + (0 if seal is None else KEY_TABLE_SIZE)
        index_offset = align_up(self._blocks_at + len(self._block_table))
        index_size = geometry.packet_count * record_size(geometry.packet_size)
        digests_offset = align_up(index_offset + index_size)
        digests_size = geometry.packet_count * page_digests_size(geometry.packet_size)
        alignment = geometry.packet_size if layout == Layout.FIXED else align_up(1)
        data_offset = align_up(digests_offset + page_digests * digests_size, alignment)
        fixed_size = geometry.packet_count * geometry.packet_size
        needed = data_offset + geometry.ram_size
        self._file = file or create(path, needed, data_offset, resume)
        self.is_remote = self._file.remote
        self.resumed = self._file.resumed
        self.dropped = self._file.dropped
        self._key, self._slots = self._seal_with(seal)
        self.plan = SlotPlan(
            path=descriptor_path(self._file.fd),
            layout=layout,
            packet_size=geometry.packet_size,
            index_offset=index_offset,
            data_offset=data_offset,
            shown=self._file.shown,
            needed=self._file.needed,
            to_disk=not self.is_remote,
            page_digests_offset=digests_offset if page_digests else 0,
            key=self._key,
        )
        self._end = data_offset + (fixed_size if layout == Layout.FIXED else 0)
        self._index_size = index_size

    def _seal_with(self, seal: Seal | None) -> tuple[FileKey | None, Sequence[KeySlot]]:
        # The key of the run that is gone on with, for only with it its packets can be kept.
        if seal is None:
            return None, ()
        table = pread_all(self._file.fd, KEY_TABLE_SIZE, SUPERBLOCK_SIZE) if self.resumed else b""
        try:
            key = seal.key(table)
            return key, seal.slots(key)
        except BaseException:  # such as a key file that is none, or Ctrl-C at a question
            self._file.__exit__()
            raise

    def __enter__(self) -> SnapshotWriter:
        try:
            if self.resumed and punch_hole(self._file.fd, 0, SUPERBLOCK_SIZE):
                self._clear_head()
            else:
                if self.resumed:
                    self.resumed, self.dropped = False, True
                    self._file.resize(0)
                self._file.resize(self._end)
            if self._key is not None:
                table = KeyTable.of(self._slots).pack(self._key)
                self._file.write(table * COPIES, SUPERBLOCK_SIZE)
            self._file.write(self._block_table, self._blocks_at)
        except BaseException:
            self._file.__exit__()
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        self._file.__exit__(*exc)

    def _clear_head(self) -> None:
        # The file may have been complete. Between its parts are zeros.
        plan = self.plan
        if self._layout == Layout.FIXED or os.fstat(self._file.fd).st_size < self._end:
            self._file.resize(self._end)
        self._file.write(bytes(plan.index_offset), 0)
        end = plan.index_offset + self._index_size
        if plan.page_digests_offset:
            self._file.write(bytes(plan.page_digests_offset - end), end)
            size = self._geometry.packet_count * page_digests_size(plan.packet_size)
            end = plan.page_digests_offset + size
        self._file.write(bytes(plan.data_offset - end), end)

    @property
    def keeps_holes(self) -> bool:
        """True if the destination's filesystem keeps holes, tested on the file itself."""
        facts = os.fstat(self._file.fd)
        if self.resumed:
            return True  # no telling: it has packets
        return facts.st_blocks * 512 < max(facts.st_size // 2, 1 << 20)

    @property
    def least_size(self) -> int:
        """Smallest possible size of the snapshot in bytes, for any contents."""
        if self._layout == Layout.FIXED and not self.keeps_holes:
            return self._end
        least = self._blocks_at + len(self._block_table) + self._index_size
        return 0 if self.resumed else least

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
        if self.resumed:
            self._file.resize(end)

    @property
    def sealer(self) -> AttachmentParts | None:
        """A cipher for the parts of the next attachment; None unless they are encrypted."""
        if self._key is None or not self._key.secret:
            return None
        return self._key.parts(len(self._attachments))

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
        if self._key is not None and self._key.secret:
            table = self._key.seal_table(table)
        table_offset = align_up(self._end, 8)
        pieces = pack_pieces(self._geometry.blocks if blocks is None else blocks)
        self._file.write(table + pieces, table_offset)
        pieces_offset = table_offset + len(table)
        file_size = pieces_offset + len(pieces)
        self._file.resize(file_size)
        superblock = Superblock(
            snapshot_id=os.urandom(16),
            parent_id=bytes(16) if parent is None else parent.snapshot_id,
            parent_root=bytes(32) if parent is None else parent.root,
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
            block_table_offset=self._blocks_at,
            block_count=len(self._geometry.blocks),
            block_table_checksum=crc32(self._block_table),
            attachment_table_offset=table_offset,
            attachment_count=len(self._attachments),
            attachment_table_checksum=crc32(table),
            page_digests_offset=self.plan.page_digests_offset,
            piece_table_offset=pieces_offset,
            piece_count=len(pieces) // PIECE_ENTRY_SIZE,
            piece_table_checksum=crc32(pieces),
            tables_digest=hashlib.sha256(self._block_table + table + pieces).digest(),
        )
        if architecture is not None:
            superblock = superblock._replace(
                machine=architecture.machine,
                machine_class=architecture.bits // 32,
                machine_data=LITTLE_ENDIAN if architecture.little else BIG_ENDIAN,
            )
        if self._key is not None:
            superblock = superblock._replace(
                sealing=Sealing.ENCRYPTED if self._key.secret else Sealing.SIGNED,
                key_table_offset=SUPERBLOCK_SIZE,
            )
            seal = self._key.mac("seal", superblock.unsealed())
            superblock = superblock._replace(seal=seal)
        raw = superblock.pack()
        root = Superblock.unpack(raw).root  # our own mistake must not become an unreadable file
        self._file.sync()
        self._file.write(raw, 0)
        self._file.sync()
        disk_size = file_size if self.is_remote else os.fstat(self._file.fd).st_blocks * 512
        self._file.commit(force=force)
        parts = self._file.kept_parts
        return WrittenSnapshot(superblock.snapshot_id, file_size, disk_size, root, parts)

    def _index_digest(self) -> bytes:
        digest = hashlib.sha256()
        for offset in range(0, self._index_size, _HASH_STEP):
            step = min(_HASH_STEP, self._index_size - offset)
            digest.update(pread_all(self._file.fd, step, self.plan.index_offset + offset))
        return digest.digest()
