"""Places of a snapshot's parts, from its superblock: their order, and their sizes. No I/O."""

from __future__ import annotations

from snapmig.container.format import (
    MAX_ATTACHMENTS,
    SUPERBLOCK_SIZE,
    Sealing,
    Superblock,
    page_digests_size,
)
from snapmig.container.tables import ATTACHMENT_ENTRY_SIZE, BLOCK_ENTRY_SIZE, PIECE_ENTRY_SIZE
from snapmig.errors import CorruptSnapshotError
from snapmig.sealing.file_key import SEALED_EXTRA
from snapmig.sealing.key_table import KEY_TABLE_SIZE

__all__ = ("attachment_table_size", "check_places")


def check_places(block: Superblock, real_size: int) -> None:
    """
    Compare the places in a superblock with each other and with the file.

    :param real_size: bytes of the file
    :raises CorruptSnapshotError: it is cut or longer, or a part begins before the end of another
    """
    if block.file_size != real_size:
        kind = "truncated" if real_size < block.file_size else "longer than it should be"
        message = f"file has {real_size} bytes, the superblock says {block.file_size}: {kind}"
        raise CorruptSnapshotError(message)
    index_size = block.packet_count * block.record_size
    table_end = block.block_table_offset + block.block_count * BLOCK_ENTRY_SIZE
    attachments_end = block.attachment_table_offset + attachment_table_size(block)
    keys_at = block.key_table_offset or SUPERBLOCK_SIZE
    keys_end = keys_at + (KEY_TABLE_SIZE if block.sealing else 0)
    index_end = block.index_offset + index_size
    digests_at = block.page_digests_offset or index_end
    digests_size = block.packet_count * page_digests_size(block.packet_size)
    digests_end = digests_at + (digests_size if block.page_digests_offset else 0)
    data_end = block.data_offset + block.data_size
    order = (
        ("key table", SUPERBLOCK_SIZE, keys_at),
        ("block table", keys_end, block.block_table_offset),
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


def attachment_table_size(block: Superblock) -> int:
    """Return the bytes of a snapshot's attachment table as it is stored."""
    count = min(block.attachment_count, MAX_ATTACHMENTS)
    extra = SEALED_EXTRA if count and block.sealing == Sealing.ENCRYPTED else 0
    return count * ATTACHMENT_ENTRY_SIZE + extra
