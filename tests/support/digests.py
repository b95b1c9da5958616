"""The page digests of a snapshot, read and computed by docs/format.md alone."""

from __future__ import annotations

import struct
from pathlib import Path

import xxhash

PAGE = 4096


def place(path: Path | str) -> tuple[int, int, int]:
    """Return offset (0 for none) and size of a snapshot's page digests, and the size per packet."""
    raw = Path(path).read_bytes()[:PAGE]
    (packet_size,) = struct.unpack_from("<I", raw, 124)
    (packets,) = struct.unpack_from("<Q", raw, 136)
    (offset,) = struct.unpack_from("<Q", raw, 232)
    size = packet_size // PAGE * 16
    return offset, packets * size, size


def read(path: Path | str) -> bytes | None:
    """Return all page digests of a snapshot, None if it has none."""
    offset, size, _ = place(path)
    return Path(path).read_bytes()[offset : offset + size] if offset else None


def expected(content: bytes, packet_size: int) -> bytes:
    """Return the page digests of one RAM block."""
    size = -(-len(content) // packet_size) * packet_size
    padded = content.ljust(size, b"\0")
    pages = (padded[at : at + PAGE] for at in range(0, size, PAGE))
    return b"".join(xxhash.xxh3_128_digest(page) if any(page) else bytes(16) for page in pages)


def damage(path: Path | str, packet: int) -> None:
    """Change a byte of a packet's page digests."""
    offset, _, size = place(path)
    with Path(path).open("r+b") as file:
        file.seek(offset + packet * size + 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))
