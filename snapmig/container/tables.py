"""
The two tables of a snapshot, as bytes: RAM blocks and attachments; no I/O.

Both have entries of a fixed size and a CRC-32 in the superblock.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from snapmig.container.format import MAX_ATTACHMENT_SIZE, MAX_NAME_SIZE, NO_GPA, Encoding
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import RamBlock, block_problem

__all__ = (
    "ATTACHMENT_ENTRY_SIZE",
    "BLOCK_ENTRY_SIZE",
    "AttachmentEntry",
    "pack_attachments",
    "pack_blocks",
    "unpack_attachments",
    "unpack_blocks",
)

_BLOCK = struct.Struct("<256sQQQ40x")
BLOCK_ENTRY_SIZE = 320
_ATTACHMENT = struct.Struct("<256sQQQB7x32s64x")
ATTACHMENT_ENTRY_SIZE = 384

_MAX_DEFLATE_RATIO = 1032
"""A deflate stream can't give more bytes than this for each of its own."""


class AttachmentEntry(NamedTuple):
    """Where an attachment is stored, and what its contents must be."""

    name: str
    offset: int
    stored_size: int
    size: int
    encoding: int
    sha256: bytes


def pack_blocks(blocks: tuple[RamBlock, ...]) -> bytes:
    """Return the stored form of the block table."""
    return b"".join(
        _BLOCK.pack(
            block.name.encode(),
            NO_GPA if block.gpa is None else block.gpa,
            block.size,
            block.page_size,
        )
        for block in blocks
    )


def unpack_blocks(raw: bytes) -> tuple[RamBlock, ...]:
    """
    Return the RAM blocks of a stored table.

    :raises CorruptSnapshotError: a name, size or page size that no guest has
    """
    blocks = []
    for name, gpa, size, page_size in _BLOCK.iter_unpack(raw):
        known_gpa = None if gpa == NO_GPA else gpa
        blocks.append(RamBlock(_unpack_name(name), size, known_gpa, page_size))
    if problem := block_problem(tuple(blocks)):
        raise CorruptSnapshotError(f"block table: {problem}")
    return tuple(blocks)


def pack_attachments(entries: tuple[AttachmentEntry, ...]) -> bytes:
    """Return the stored form of the attachment table."""
    return b"".join(
        _ATTACHMENT.pack(
            entry.name.encode(),
            entry.offset,
            entry.stored_size,
            entry.size,
            entry.encoding,
            entry.sha256,
        )
        for entry in entries
    )


def unpack_attachments(raw: bytes, *, start: int, stop: int) -> tuple[AttachmentEntry, ...]:
    """
    Return the attachments of a stored table, which must lie between two offsets of the file.

    :raises CorruptSnapshotError: a bad name, a place outside, or more than the size limit
    """
    entries = tuple(
        AttachmentEntry(_unpack_name(name), *facts) for name, *facts in _ATTACHMENT.iter_unpack(raw)
    )
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise CorruptSnapshotError("attachment table: a name appears twice")
    for entry in entries:
        _check_attachment(entry, start, stop)
    return entries


def _check_attachment(entry: AttachmentEntry, start: int, stop: int) -> None:
    what = f"attachment {entry.name!r}"
    if not entry.name:
        raise CorruptSnapshotError("attachment table: an attachment has no name")
    if not (start <= entry.offset and entry.offset + entry.stored_size <= stop):
        message = f"{what} has its bytes outside of the file's attachments"
        raise CorruptSnapshotError(message, offset=entry.offset)
    if entry.size > MAX_ATTACHMENT_SIZE:
        message = f"{what} has {entry.size} bytes, expected at most {MAX_ATTACHMENT_SIZE}"
        raise CorruptSnapshotError(message)
    if entry.size > entry.stored_size * _MAX_DEFLATE_RATIO:
        message = f"{what} has {entry.size} bytes from {entry.stored_size}, which can't be"
        raise CorruptSnapshotError(message)
    if entry.encoding == Encoding.RAW and entry.stored_size != entry.size:
        message = f"{what} is raw with {entry.stored_size} bytes, expected {entry.size}"
        raise CorruptSnapshotError(message)


def _unpack_name(raw: bytes) -> str:
    name = raw.rstrip(b"\0")
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise CorruptSnapshotError(f"name {name!r} in a table is not UTF-8") from error
    if len(name) > MAX_NAME_SIZE or "\0" in text:
        raise CorruptSnapshotError(f"name {name!r} in a table is not ended by a zero byte")
    return text
