"""Checksums of a changed snapshot made right again, by docs/format.md, as far as it makes sense."""

from __future__ import annotations

import hashlib
import struct
import zlib

from tests.support.damage.regions import (
    ATTACHMENT_ENTRY,
    BLOCK_ENTRY,
    FIXED,
    PAGE,
    PIECE_ENTRY,
    RAW,
    Superblock,
    read_superblock,
)

DEFLATE = 3
LARGEST = 1 << 22
"""Bytes of contents, and packets, worth a checksum here."""


def repair_snapshot(data: bytes) -> bytes:
    """Return a snapshot with right checksums of everything but pages."""
    if len(data) < PAGE:
        return data
    raw = bytearray(data)
    raw[:8] = b"\x93SNAPMIG"
    struct.pack_into("<Q", raw, 96, len(raw))
    block = read_superblock(raw)
    _repair_tables(raw, block)
    _repair_index(raw, block)
    raw[12:16] = struct.pack("<I", zlib.crc32(bytes(raw[:12]) + bytes(4) + bytes(raw[16:PAGE])))
    return bytes(raw)


def _repair_tables(raw: bytearray, block: Superblock) -> None:
    tables = ((block.blocks, BLOCK_ENTRY, 212), (block.pieces, PIECE_ENTRY, 252))
    if block.attachments[1] * ATTACHMENT_ENTRY < LARGEST:
        for number in range(block.attachments[1]):
            _repair_attachment(raw, block.attachments[0] + number * ATTACHMENT_ENTRY)
    for (offset, count), entry, at in (*tables, (block.attachments, ATTACHMENT_ENTRY, 228)):
        if count * entry < LARGEST:
            struct.pack_into("<I", raw, at, zlib.crc32(raw[offset : offset + count * entry]))


def _repair_attachment(raw: bytearray, at: int) -> None:
    if at + ATTACHMENT_ENTRY > len(raw):
        return
    offset, stored = struct.unpack_from("<QQ", raw, at + 256)
    content = bytes(raw[offset : offset + stored])
    if raw[at + 280] == DEFLATE:
        try:
            content = zlib.decompressobj(-15).decompress(content, LARGEST)
        except zlib.error:
            return
    raw[at + 288 : at + 320] = hashlib.sha256(content).digest()
    if len(content) < LARGEST:
        struct.pack_into("<Q", raw, at + 272, len(content))


def _repair_index(raw: bytearray, block: Superblock) -> None:
    end = block.index + block.packets * block.record_size
    if not 104 <= block.record_size <= 4096 or end > len(raw):
        return
    for number in range(block.packets):
        _repair_record(raw, block, number)
    raw[152:184] = hashlib.sha256(raw[block.index : end]).digest()


def _repair_record(raw: bytearray, block: Superblock, number: int) -> None:
    at = block.index + number * block.record_size
    offset, size, encoding = struct.unpack_from("<8xQIB", raw, at)
    pages = min(block.packet_size // PAGE, 1024)
    bits = int.from_bytes(raw[at + 96 : at + min(96 + pages // 4, block.record_size)], "little")
    stored = bytes(raw[offset : offset + min(size, LARGEST)])
    if encoding == RAW and block.layout == FIXED:
        kept = (page for page in range(pages) if bits >> 2 * page & 1)
        stored = b"".join(raw[offset + page * PAGE : offset + (page + 1) * PAGE] for page in kept)
    struct.pack_into("<I", raw, at + 24, zlib.crc32(stored))
    if block.digests and bits:
        row = block.digests + number * pages * 16
        struct.pack_into("<I", raw, at + 76, zlib.crc32(raw[row : row + pages * 16]))
    struct.pack_into("<I", raw, at + 28, 0)
    struct.pack_into("<I", raw, at + 28, zlib.crc32(raw[at : at + block.record_size]))
