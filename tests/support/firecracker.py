"""Firecracker's memory files and vmstates."""

import struct
from pathlib import Path

MIB = 1 << 20

X86_64 = 0x0710_1984_8664_0000
AARCH64 = 0x0710_1984_AAAA_0000


def crc64(data: bytes) -> int:
    """Return the CRC-64 of Jones bit by bit, after the polynomial's published form."""
    polynomial = int(f"{0xAD93D23594C935A9:064b}"[::-1], 2)
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
    return crc


def vmstate(magic: int = X86_64, body: bytes = b"state" * 20, before: bytes = b"") -> bytes:
    """Return a vmstate: magic, any body, checksum."""
    content = before + struct.pack("<Q", magic) + body
    return content + struct.pack("<Q", crc64(content))


def memory(path: Path, size: int = 4 * MIB, pieces: dict[int, bytes] | None = None) -> Path:
    """Write a sparse memory file."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in ({0: b"first", MIB: b"second"} if pieces is None else pieces).items():
            file.seek(offset)
            file.write(piece)
    return path
