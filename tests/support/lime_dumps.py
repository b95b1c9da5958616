"""
Dumps of LiME and AVML, built and read by hand; snappy and its checksum are written out here.

See LiME's doc/README.md, AVML's src/image.rs, and snappy's format descriptions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

LIME, AVML = b"EMiL", b"AVML"
IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"
FRAME = 65536


def _table() -> list[int]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_TABLE = _table()


def crc32c(content: bytes) -> int:
    """Return the checksum of a frame, masked as snappy does."""
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def header(
    start: int, size: int, magic: bytes = LIME, version: int | None = None, rest: int = 0
) -> bytes:
    """Return the header of a record."""
    version = (1 if magic == LIME else 2) if version is None else version
    return struct.pack("<4sIQQQ", magic, version, start, start + size - 1, rest)


def lime(*records: tuple[int, bytes]) -> bytes:
    """Return a dump of LiME."""
    return b"".join(header(start, len(content)) + content for start, content in records)


def frame(content: bytes, *, plain: bool = False) -> bytes:
    """Return a frame: as it is, or its first byte and a copy of that for each run of 64 bytes."""
    body = content if plain else _pack(content)
    head = (len(body) + 4).to_bytes(3, "little")
    return bytes([plain]) + head + crc32c(content).to_bytes(4, "little") + body


def stream(content: bytes, *, plain: bool = False) -> bytes:
    """Return a record's frames, and AVML's count of their bytes."""
    parts = (content[at : at + FRAME] for at in range(0, len(content), FRAME))
    made = IDENTIFIER + b"".join(frame(part, plain=plain) for part in parts)
    return made + len(made).to_bytes(8, "little")


def avml(*records: tuple[int, bytes], plain: bool = False) -> bytes:
    """Return a dump of AVML."""
    return b"".join(
        header(start, len(content), AVML) + stream(content, plain=plain)
        for start, content in records
    )


def read_avml(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a dump, read as AVML reads them: frames until all bytes are there."""
    at = 0
    while at < len(raw):
        start, last = struct.unpack_from("<QQ", raw, at + 8)
        assert raw[at : at + 32] == header(start, last + 1 - start, AVML)
        at = begin = at + 32
        content = b""
        while len(content) <= last - start:
            kind, size = raw[at], int.from_bytes(raw[at + 1 : at + 4], "little")
            body = raw[at + 4 : at + 4 + size]
            at += 4 + size
            if kind in (0, 1):
                plain = body[4:] if kind else _unpack(body[4:])
                assert int.from_bytes(body[:4], "little") == crc32c(plain)
                content += plain
            else:
                assert (kind, body) == (0xFF, IDENTIFIER[4:])
        assert int.from_bytes(raw[at : at + 8], "little") == at - begin
        at += 8
        yield start, content


def _pack(content: bytes) -> bytes:
    packed = bytearray()
    size = len(content)
    while size >= 0x80:
        packed.append(size & 0x7F | 0x80)
        size >>= 7
    packed.append(size)
    for at in range(0, len(content), 64):
        part = content[at : at + 64]
        if at and part == content[at - 64 : at]:
            packed += bytes([len(part) - 1 << 2 | 2, 64, 0])  # a copy from 64 bytes before
        else:
            packed += bytes([60 << 2, len(part) - 1]) + part
    return bytes(packed)


def _pack(content: bytes) -> bytes:
    packed = bytearray()
    size = len(content)
    while size >= 0x80:
        packed.append(size & 0x7F | 0x80)
        size >>= 7
    packed.append(size)
    for at in range(0, len(content), 64):
        part = content[at : at + 64]
        if at and part == content[at - 64 : at]:
            packed += bytes([len(part) - 1 << 2 | 2, 64, 0])  # a copy from 64 bytes before
        else:
            packed += bytes([60 << 2, len(part) - 1]) + part
    return bytes(packed)


def _unpack(packed: bytes) -> bytes:
    at = 1 + next(number for number, byte in enumerate(packed) if byte < 0x80)
    made = bytearray()
    while at < len(packed):
        tag, at = packed[at], at + 1
        if tag & 3 == 0:
            more = max(0, (tag >> 2) - 59)
            length = int.from_bytes(packed[at : at + more], "little") if more else tag >> 2
            at += more
            made += packed[at : at + length + 1]
            at += length + 1
            continue
        if tag & 3 == 1:
            length, back = 4 + (tag >> 2 & 7), tag >> 5 << 8 | packed[at]
            at += 1
        else:
            wide = 2 if tag & 3 == 2 else 4
            length, back = 1 + (tag >> 2), int.from_bytes(packed[at : at + wide], "little")
            at += wide
        for _ in range(length):
            made.append(made[-back])
    return bytes(made)
