"""A small reader of snapshots, independent of snapmig's own."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

EMPTY, RAW, DEFLATE = 1, 2, 3
PAGE = 4096


@dataclass(frozen=True)
class Slot:
    """A packet's record, its data pages' numbers, and its stored bytes."""

    offset: int
    encoding: int
    pages: tuple[int, ...]
    stored: bytes


@dataclass(frozen=True)
class Parts:
    """A snapshot taken to pieces."""

    index: bytes
    slots: tuple[Slot, ...]
    data: bytes
    attachments: bytes


def read(path: Path | str) -> Parts:
    """Take a snapshot to pieces."""
    raw = Path(path).read_bytes()
    packet_size, record_size, layout = struct.unpack_from("<IIB", raw, 124)
    packets, index_at = struct.unpack_from("<QQ", raw, 136)
    data_at, data_size = struct.unpack_from("<QQ", raw, 184)
    index = raw[index_at : index_at + packets * record_size]
    records = [index[at : at + record_size] for at in range(0, len(index), record_size)]
    slots = tuple(_slot(raw, record, packet_size // PAGE, layout == 1) for record in records)
    end = data_at + data_size
    return Parts(index, slots, raw[data_at:end], raw[end:])


def _slot(raw: bytes, record: bytes, pages: int, fixed: bool) -> Slot:
    offset, size, encoding = struct.unpack_from("<8xQIB", record)
    kinds = int.from_bytes(record[96 : 96 + pages // 4], "little")
    numbers = tuple(page for page in range(pages) if kinds >> 2 * page & 3)
    if fixed and encoding == RAW:
        places = [offset + number * PAGE for number in numbers]
        return Slot(offset, encoding, numbers, b"".join(raw[at : at + PAGE] for at in places))
    return Slot(offset, encoding, numbers, raw[offset : offset + size])


def decoded(slot: Slot, window_bits: int) -> dict[int, bytes]:
    """Return a packet's data pages by number, decoded with zlib."""
    plain = zlib.decompress(slot.stored, -window_bits) if slot.encoding == DEFLATE else slot.stored
    return {
        number: plain[at * PAGE : (at + 1) * PAGE] for at, number in enumerate(slot.pages)
    }  # fmt: skip


def without_places(index: bytes, slots: tuple[Slot, ...]) -> list[bytes]:
    """Return index records without the fields that depend on places of packets."""
    size = len(index) // len(slots)
    records = [index[at : at + size] for at in range(0, len(index), size)]
    return [record[:8] + record[16:28] + record[32:] for record in records]
