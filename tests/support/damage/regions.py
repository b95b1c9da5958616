"""The parts of a snapshot file, found by docs/format.md alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

RAW, FIXED, PAGE = 2, 1, 4096
BLOCK_ENTRY, ATTACHMENT_ENTRY, PIECE_ENTRY = 320, 384, 32


class Region(NamedTuple):
    """Bytes in use, and the packet that they are about."""

    name: str
    start: int
    stop: int
    packet: int | None = None


class Superblock(NamedTuple):
    """Fields that tell where the parts are."""

    packet_size: int
    record_size: int
    layout: int
    packets: int
    index: int
    blocks: tuple[int, int]
    attachments: tuple[int, int]
    digests: int
    pieces: tuple[int, int]


def read_superblock(raw: bytes) -> Superblock:
    """Return the places in a sound snapshot."""
    packet_size, record_size, layout = struct.unpack_from("<IIB", raw, 124)
    packets, index = struct.unpack_from("<QQ", raw, 136)
    return Superblock(
        packet_size,
        record_size,
        layout,
        packets,
        index,
        struct.unpack_from("<QI", raw, 200),
        struct.unpack_from("<QI", raw, 216),
        *struct.unpack_from("<Q", raw, 232),
        struct.unpack_from("<QI", raw, 240),
    )


def regions(raw: bytes) -> list[Region]:
    """Return the parts of a sound snapshot; bytes in none of them are unused."""
    block = read_superblock(raw)
    found = [
        Region("superblock", 0, PAGE),
        _table("block table", block.blocks, BLOCK_ENTRY),
        _table("attachment table", block.attachments, ATTACHMENT_ENTRY),
        _table("piece table", block.pieces, PIECE_ENTRY),
        *_attachments(raw, block),
    ]
    for packet in range(block.packets):
        start = block.index + packet * block.record_size
        found.append(Region("record", start, start + block.record_size, packet))
        found += _stored(raw, block, packet, start)
    return [region for region in found if region.start < region.stop]


def _table(name: str, place: tuple[int, int], entry: int) -> Region:
    return Region(name, place[0], place[0] + place[1] * entry)


def _attachments(raw: bytes, block: Superblock) -> Iterator[Region]:
    for number in range(block.attachments[1]):
        at = block.attachments[0] + number * ATTACHMENT_ENTRY
        offset, stored = struct.unpack_from("<QQ", raw, at + 256)
        yield Region("attachment", offset, offset + stored)


def _stored(raw: bytes, block: Superblock, packet: int, at: int) -> Iterator[Region]:
    offset, size, encoding = struct.unpack_from("<8xQIB", raw, at)
    pages = block.packet_size // PAGE
    bits = int.from_bytes(raw[at + 96 : at + 96 + pages // 4], "little")
    kinds = [bits >> 2 * page & 3 for page in range(pages)]
    if block.digests and any(kinds):
        row = block.digests + packet * pages * 16
        yield Region("page digests", row, row + pages * 16, packet)
    if encoding == RAW and block.layout == FIXED:
        for page, kind in enumerate(kinds):
            if kind & 1:
                yield Region("stored", offset + page * PAGE, offset + (page + 1) * PAGE, packet)
    else:
        yield Region("stored", offset, offset + size, packet)
