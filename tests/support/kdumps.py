"""Write kdump-compressed dumps of any form, right and wrong, without the program."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cramjam
import lzallright
import zstandard

PAGE = 4096
PLAIN, ZLIB, LZO, SNAPPY, ZSTD = 0, 1, 2, 4, 0x20
COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    PLAIN: bytes,
    ZLIB: zlib.compress,
    LZO: lambda page: lzallright.LZOCompressor().compress(page),
    SNAPPY: lambda page: bytes(cramjam.snappy.compress_raw(page)),
    ZSTD: zstandard.compress,
}
END = -1


@dataclass(frozen=True)
class Kdump:
    """
    A dump: pages by frame number, and frames that are RAM and not in the dump.

    Numbers in the headers and the table can be replaced.
    """

    pages: Mapping[int, bytes]
    left_out: Sequence[int] = ()
    compression: int = ZLIB
    bits: int = 64
    order: str = "<"
    block: int = PAGE
    magic: bytes = b"KDUMP   "
    machine: bytes = b"x86_64"
    notes: bytes = b""
    status: int = 1
    version: int = 6
    dump_level: int = 1
    fields: Mapping[str, int] = field(default_factory=dict)
    """Fields of the headers with other values."""
    entries: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    """Fields of the table with other values, by the page's number in the dump."""
    stored: Mapping[int, bytes] = field(default_factory=dict)
    """Other bytes of pages."""

    def build(self) -> bytes:
        """Return the dump."""
        frames = [*self.pages, *self.left_out]
        bits = max(frames, default=0) + 1
        size = -(-bits // 8 // self.block) * self.block or self.block
        sub = self._sub(bits)
        sub_blocks = -(-(len(sub) + len(self.notes)) // self.block)
        values = {
            "status": self.status, "block": self.block, "sub_blocks": sub_blocks,
            "bitmap_blocks": 2 * size // self.block, "frames": bits, **self.fields,
        }  # fmt: skip
        head = self._head(values).ljust(self.block, b"\0")
        head += (sub + self.notes).ljust(sub_blocks * self.block, b"\0")
        head += _bitmap(frames, size) + _bitmap(self.pages, size)
        return head + self._pages(len(head))

    def _head(self, values: Mapping[str, int]) -> bytes:
        words = (b"Linux", b"host", b"6.1.0", b"#1", self.machine, b"domain")
        names = b"".join(word.ljust(65, b"\0") for word in words)
        start = self.magic + struct.pack(f"{self.order}I", self.version) + names
        start = start.ljust(424 if self.bits == 64 else 412, b"\0")
        fields = ("status", "block", "sub_blocks", "bitmap_blocks", "frames")
        return start + struct.pack(f"{self.order}10I", *map(values.__getitem__, fields), *[0] * 5)

    def _sub(self, bits: int) -> bytes:
        form = "Q2I8Q3Q" if self.bits == 64 else "5IQIQIQI3Q"
        place = self.block + struct.calcsize(self.order + form)
        values = {
            "notes_offset": place,
            "notes_size": len(self.notes),
            "mapnr": bits,
            **self.fields,
        }
        return struct.pack(
            self.order + form, 0, self.dump_level, values.get("split", 0), 0, 0,
            values.get("info_offset", 0), values.get("info_size", 0),
            values["notes_offset"], values["notes_size"],
            values.get("erased_offset", 0), values.get("erased_size", 0), 0, 0, values["mapnr"],
        )  # fmt: skip

    def _pages(self, start: int) -> bytes:
        # One page of zeros for all, as QEMU and makedumpfile write it.
        shared = start + 24 * len(self.pages)
        at = shared + self.block
        table, data, zeros = b"", bytes(self.block), bytes(self.block)
        for number, frame in enumerate(sorted(self.pages)):
            page, flags = self.pages[frame], self.compression
            stored = self.stored.get(number, COMPRESS[flags](page))
            if number not in self.stored and len(stored) >= len(page):
                stored, flags = page, PLAIN
            entry = {"offset": at, "size": len(stored), "flags": flags}
            if page == zeros:
                entry = {"offset": shared, "size": self.block, "flags": PLAIN}
            else:
                at, data = at + len(stored), data + stored
            entry |= self.entries.get(number, {})
            table += struct.pack(f"{self.order}qIIQ", *entry.values(), 0)
        return table + data


def _bitmap(frames: Sequence[int] | Mapping[int, bytes], size: int) -> bytes:
    bits = bytearray(size)
    for frame in frames:
        bits[frame // 8] |= 1 << frame % 8
    return bytes(bits)


def flattened(dump: bytes, cuts: Sequence[int] = (), order: Sequence[int] = ()) -> bytes:
    """
    Return a dump as records.

    :param cuts: where a new record begins
    :param order: of the records in the file
    """
    edges = [0, *cuts, len(dump)]
    records = [(a, dump[a:b]) for a, b in pairwise(edges)]
    return records_file([records[number] for number in order or range(len(records))])


def records_file(records: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a flattened file of records."""
    head = (b"makedumpfile".ljust(16, b"\0") + struct.pack(">2q", 1, 1)).ljust(PAGE, b"\0")
    body = b"".join(struct.pack(">2q", at, len(data)) + data for at, data in records)
    return head + body + struct.pack(">2q", END, END)


@dataclass(frozen=True)
class Read:
    """
    A dump of pages, plain or by zlib, as a reader sees it.

    `pages` are by frame number, `places` where each is in the file.
    """

    words: tuple[str, ...]
    pages: Mapping[int, bytes]
    places: Mapping[int, int]
    notes: bytes
    info: bytes
    processors: int
    page_size: int


def read_dump(raw: bytes, bits: int = 64, order: str = "<") -> Read:
    """Return what is in a dump."""
    at = 424 if bits == 64 else 412
    _, block, sub_blocks, bitmap_blocks, _ = struct.unpack_from(f"{order}5I", raw, at)
    sub = struct.unpack_from(order + ("Q2I8Q3Q" if bits == 64 else "5IQIQIQI3Q"), raw, block)
    start, size = (1 + sub_blocks) * block, bitmap_blocks // 2 * block
    assert raw[start : start + size] == raw[start + size : start + 2 * size]
    frames = [frame for frame in range(sub[-1]) if raw[start + frame // 8] >> frame % 8 & 1]
    pages, places = {}, {}
    for number, frame in enumerate(frames):
        entry = start + 2 * size + 24 * number
        place, length, flags, _ = struct.unpack_from(f"{order}qIIQ", raw, entry)
        stored = raw[place : place + length]
        pages[frame] = zlib.decompress(stored) if flags == ZLIB else stored
        places[frame] = place
    words = [raw[12 + 65 * n :][:65].rstrip(b"\0").decode() for n in range(6)]
    (processors,) = struct.unpack_from(f"{order}I", raw, at + 36)
    notes, info = raw[sub[7] : sub[7] + sub[8]], raw[sub[5] : sub[5] + sub[6]]
    return Read(tuple(words), pages, places, notes, info, processors, block)
