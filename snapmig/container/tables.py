"""
The tables of a snapshot, as bytes: RAM blocks, their pieces, and attachments. No I/O.

All have entries of a fixed size and a CRC-32 in the superblock.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from snapmig.container.format import MAX_ATTACHMENT_SIZE, MAX_NAME_SIZE, Encoding
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import RamBlock, RamPiece, block_problem
from snapmig.sealing.file_key import SEALED_EXTRA

__all__ = (
    "ATTACHMENT_ENTRY_SIZE",
    "BLOCK_ENTRY_SIZE",
    "PIECE_ENTRY_SIZE",
    "SEALED_PART_SIZE",
    "AttachmentEntry",
    "pack_attachments",
    "pack_blocks",
    "pack_pieces",
    "sealed_size",
    "unpack_attachments",
    "unpack_blocks",
    "unpack_pieces",
)

_BLOCK = struct.Struct("<256sQQ48x")
BLOCK_ENTRY_SIZE = 320
_PIECE = struct.Struct("<QQQII")
PIECE_ENTRY_SIZE = 32
_ATTACHMENT = struct.Struct("<256sQQQB7x32s64x")
ATTACHMENT_ENTRY_SIZE = 384

SEALED_PART_SIZE = 1 << 20
"""Bytes of an attachment that are encrypted together."""

_MAX_DEFLATE_RATIO = 1032
"""Upper limit of a deflate stream's output, in bytes per byte of the stream."""


class AttachmentEntry(NamedTuple):
    """Place, size and digest of an attachment."""

    name: str
    offset: int
    stored_size: int
    size: int
    encoding: int
    sha256: bytes


def pack_blocks(blocks: tuple[RamBlock, ...]) -> bytes:
    """Return the stored form of the block table."""
    return b"".join(
        _BLOCK.pack(block.name.encode(), block.size, block.page_size) for block in blocks
    )


def unpack_blocks(raw: bytes) -> tuple[RamBlock, ...]:
    """
    Return the RAM blocks of a stored table, without their pieces.

    :raises CorruptSnapshotError: a name, size or page size impossible in a guest
    """
    blocks = tuple(
        RamBlock(_unpack_name(name), size, page_size=page_size)
        for name, size, page_size in _BLOCK.iter_unpack(raw)
    )
    if problem := block_problem(blocks):
        raise CorruptSnapshotError(f"block table: {problem}")
    return blocks


def pack_pieces(blocks: tuple[RamBlock, ...]) -> bytes:
    """Return the stored form of the piece table."""
    entries = sorted(
        (piece.gpa, piece.size, piece.offset, number, 0)
        for number, block in enumerate(blocks)
        for piece in block.pieces
    )
    return b"".join(_PIECE.pack(*entry) for entry in entries)


def unpack_pieces(raw: bytes, blocks: tuple[RamBlock, ...]) -> tuple[RamBlock, ...]:
    """
    Return RAM blocks with the pieces of a stored table.

    :raises CorruptSnapshotError: a piece outside its block, or not in the order of addresses
    """
    pieces: list[list[RamPiece]] = [[] for _ in blocks]
    entries = list(_PIECE.iter_unpack(raw))
    for gpa, size, offset, block, reserved in entries:
        if block >= len(blocks) or reserved:
            message = f"piece table: a piece has the RAM block {block} and {reserved} as reserved"
            raise CorruptSnapshotError(message)
        pieces[block].append(RamPiece(offset, size, gpa))
    for (gpa, *_), (other, *_) in pairwise(entries):
        if other < gpa:
            raise CorruptSnapshotError(f"piece table: {other:#x} comes after {gpa:#x}")
    known = tuple(
        replace(block, pieces=tuple(own)) for block, own in zip(blocks, pieces, strict=True)
    )
    if problem := block_problem(known):
        raise CorruptSnapshotError(f"piece table: {problem}")
    return known


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


def unpack_attachments(
    raw: bytes, *, start: int, stop: int, sealed: bool = False
) -> tuple[AttachmentEntry, ...]:
    """
    Return the attachments of a stored table; all must lie between two offsets of the file.

    :param sealed: their bytes are encrypted in parts
    :raises CorruptSnapshotError: a bad name, a place outside, or more than the size limit
    """
    entries = tuple(
        AttachmentEntry(_unpack_name(name), *facts) for name, *facts in _ATTACHMENT.iter_unpack(raw)
    )
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise CorruptSnapshotError("attachment table: a name appears twice")
    for entry in entries:
        _check_attachment(entry, start, stop, sealed=sealed)
    return entries


def _check_attachment(entry: AttachmentEntry, start: int, stop: int, *, sealed: bool) -> None:
    what = f"attachment {entry.name!r}"
    if not entry.name:
        raise CorruptSnapshotError("attachment table: an attachment has no name")
    taken = sealed_size(entry.stored_size) if sealed else entry.stored_size
    if not (start <= entry.offset and entry.offset + taken <= stop):
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


def sealed_size(stored_size: int) -> int:
    """Return the bytes that an attachment takes when it is encrypted in parts."""
    return stored_size + -(-stored_size // SEALED_PART_SIZE) * SEALED_EXTRA


def _unpack_name(raw: bytes) -> str:
    name = raw.rstrip(b"\0")
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise CorruptSnapshotError(f"name {name!r} in a table is not UTF-8") from error
    if len(name) > MAX_NAME_SIZE or "\0" in text:
        raise CorruptSnapshotError(f"name {name!r} in a table is not ended by a zero byte")
    return text
