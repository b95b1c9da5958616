"""
A finished snapshot without its packets, read in the order prescribed by docs/format.md.

Nothing is trusted before it is checked: the superblock against its checksum and limits, every place
against the file's real size. It needs no numpy: see :mod:`snapmig.container.stored_index`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Self

from snapmig.architectures import Architecture
from snapmig.checksums import crc32
from snapmig.container.format import (
    LITTLE_ENDIAN,
    SUPERBLOCK_SIZE,
    Encoding,
    Layout,
    Sealing,
    Superblock,
)
from snapmig.container.places import attachment_table_size, check_places
from snapmig.container.stored_index import StoredIndex
from snapmig.container.tables import (
    BLOCK_ENTRY_SIZE,
    PIECE_ENTRY_SIZE,
    SEALED_PART_SIZE,
    AttachmentEntry,
    sealed_size,
    unpack_attachments,
    unpack_blocks,
    unpack_pieces,
)
from snapmig.errors import (
    CorruptSnapshotError,
    KeyRequiredError,
    SnapmigError,
    UnsupportedError,
)
from snapmig.geometry import Geometry
from snapmig.sealing.file_key import SEALED_EXTRA, FileKey, SealedError
from snapmig.sealing.key_table import KEY_TABLE_SIZE, KeyTable
from snapmig.sealing.keyring import Keyring, Keys
from snapmig.stores.opening import open_source
from snapmig.stores.source import ByteSource, SourcePlan

__all__ = ("SnapshotHead",)

_ATTACHMENT_STEP = 4 << 20
"""Bytes of an attachment read at once."""


class SnapshotHead:
    """
    An open snapshot: superblock and tables checked, index and packets still unread.

    :ivar keyring: keys for it and its parents
    :ivar allows_locked: it may be open without a key
    :ivar index_checked: as the argument

    :param path: a path, an ``s3://`` URL, or a file open in another process
    :param shown: display name, if other than the path
    :param keys: open a sealed snapshot; a file key: this process need not prove anew what the
        process that gave it has proved
    :param locked: open an encrypted snapshot without a key, too: its packets, digests and
        attachments can't be read then
    :param index_checked: with a keyring, check the whole index of a sealed snapshot: else its
        records are not proved
    :raises CorruptSnapshotError: not a snapshot, truncated, or damaged in its tables
    :raises UnsupportedError: needs a feature unknown to this reader
    :raises KeyRequiredError: it is encrypted, and there is no key for it
    """

    def __init__(
        self,
        path: str | SourcePlan,
        shown: str | None = None,
        *,
        keys: Keyring | FileKey | None = None,
        locked: bool = False,
        index_checked: bool = True,
    ) -> None:
        self.shown = str(path) if shown is None else shown
        self.keyring = keys if isinstance(keys, Keyring) else None
        self.allows_locked = locked
        self.index_checked = index_checked
        try:
            with ExitStack() as stack:
                self._source: ByteSource = open_source(path, self.shown)
                stack.callback(self._source.close)
                self._load(keys)
                stack.pop_all()
        except SnapmigError as error:
            error.path = error.path or self.shown
            raise
        except OSError as error:
            error.filename = error.filename or self.shown
            raise

    def _load(self, keys: Keyring | FileKey | None) -> None:
        self.superblock = block = Superblock.unpack(self._source.read(0, SUPERBLOCK_SIZE))
        check_places(block, self._source.size)
        self.key = self._unlock(keys)
        blocks = unpack_blocks(self._table("block", block.block_count * BLOCK_ENTRY_SIZE))
        pieces = self._table("piece", block.piece_count * PIECE_ENTRY_SIZE)
        self.geometry = Geometry(unpack_pieces(pieces, blocks), block.packet_size)
        self._check_counts()
        self.attachments = self._load_attachments()
        self._check_tables_digest()
        if self.index_checked and isinstance(keys, Keyring) and self.key is not None:
            self.index.check_digest()

    def _load_attachments(self) -> tuple[AttachmentEntry, ...]:
        block = self.superblock
        table = self._table("attachment", attachment_table_size(block))
        if block.sealing == Sealing.ENCRYPTED:
            if self.key is None:
                return ()
            try:
                table = self.key.open_table(table)
            except SealedError:
                raise CorruptSnapshotError(
                    "attachment table is not the one that was sealed"
                ) from None
        start, stop = block.data_offset + block.data_size, block.attachment_table_offset
        return unpack_attachments(
            table, start=start, stop=stop, sealed=block.sealing == Sealing.ENCRYPTED
        )

    def _unlock(self, keys: Keyring | FileKey | None) -> FileKey | None:
        # The file key, after the seal of the superblock was checked: all else hangs on that.
        block = self.superblock
        if not block.sealing:
            return None
        secret = block.sealing == Sealing.ENCRYPTED
        if isinstance(keys, Keyring) and (secret or keys.keys):
            try:
                key = keys.unlock(self.key_table(), secret=secret)
            except KeyRequiredError:
                if self.allows_locked and not keys.keys:
                    return None
                raise
        elif isinstance(keys, FileKey):
            key = keys
        elif secret and not self.allows_locked:
            Keyring(Keys()).unlock(self.key_table(), secret=True)
            raise KeyRequiredError("is encrypted and needs a key")
        else:
            return None
        if not key.check_mac("seal", block.unsealed(), block.seal):
            raise CorruptSnapshotError("the superblock is not the one that was sealed")
        return key

    def key_table(self) -> KeyTable:
        """
        Return the key slots of a sealed snapshot, proved only once a key has opened one.

        :raises CorruptSnapshotError: it is damaged
        """
        offset = self.superblock.key_table_offset
        return KeyTable.unpack(self._source.read(offset, KEY_TABLE_SIZE))

    @property
    def is_locked(self) -> bool:
        """True if it is encrypted, and open without a key."""
        return self.key is None and self.superblock.sealing == Sealing.ENCRYPTED

    @property
    def is_proved(self) -> bool:
        """True if a key has shown that it is what was sealed."""
        return self.key is not None

    def _check_tables_digest(self) -> None:
        block = self.superblock
        digest = hashlib.sha256()
        for offset, size in (
            (block.block_table_offset, block.block_count * BLOCK_ENTRY_SIZE),
            (block.attachment_table_offset, attachment_table_size(block)),
            (block.piece_table_offset, block.piece_count * PIECE_ENTRY_SIZE),
        ):
            digest.update(self._source.read(offset, size) if size else b"")
        if digest.digest() != block.tables_digest:
            message = (
                f"digest of the tables is {block.tables_digest.hex()}, "
                f"computed {digest.hexdigest()}"
            )
            raise CorruptSnapshotError(message)

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

    def __enter__(self) -> Self:
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

    @property
    def repeated_requests(self) -> int:
        """Number of requests with more than one attempt."""
        return self._source.repeated_requests

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
            self._source.keep(block.attachment_table_offset, attachment_table_size(block))
            self._source.keep(block.piece_table_offset, block.piece_count * PIECE_ENTRY_SIZE)
        return self._source.plan()

    @cached_property
    def index(self) -> StoredIndex:
        """Its records, not checked."""
        return StoredIndex(self._source, self.superblock, self.shown)

    @cached_property
    def layout(self) -> Layout:
        """Layout of the packets."""
        return Layout(self.superblock.layout)

    @cached_property
    def sealing(self) -> Sealing:
        """Protection by keys."""
        return Sealing(self.superblock.sealing)

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

    @property
    def has_deflate(self) -> bool:
        """True if packets may be deflate streams."""
        return bool(self.superblock.encodings >> Encoding.DEFLATE & 1)

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
        if self.superblock.sealing != Sealing.ENCRYPTED or self.key is None:
            yield from self._attachment_steps(entry, entry.stored_size, _ATTACHMENT_STEP)
            return
        parts = self.key.parts(self.attachments.index(entry))
        size = sealed_size(entry.stored_size)
        for piece in self._attachment_steps(entry, size, SEALED_PART_SIZE + SEALED_EXTRA):
            try:
                yield parts.open(piece)
            except SealedError:
                message = f"attachment {entry.name!r} is not what was sealed"
                error = CorruptSnapshotError(message, path=self.shown, offset=entry.offset)
                raise error from None

    def _attachment_steps(self, entry: AttachmentEntry, size: int, step: int) -> Iterator[bytes]:
        stop = entry.offset + size
        for at in range(entry.offset, stop, step):
            length = min(step, stop - at)
            piece = self._source.read(at, length)
            if len(piece) != length:
                message = f"file ends inside attachment {entry.name!r}"
                raise CorruptSnapshotError(message, path=self.shown, offset=entry.offset)
            yield piece

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
