"""Firecracker's vmstates beside a memory file."""

from __future__ import annotations

import struct
from pathlib import Path

from snapmig.images.formats.firecracker import _crc64
from tests.fuzz.images import read_image
from tests.support.firecracker import AARCH64, X86_64, memory, vmstate

REGION = struct.pack("<QQQ", 0, 4 << 20, 0)


def seeds() -> list[bytes]:
    """Return vmstates of several versions."""
    return [
        vmstate(X86_64),
        vmstate(AARCH64, body=REGION * 4),
        vmstate(X86_64, body=b"state" * 5 + REGION + bytes(200), before=b"\1\0"),
    ]


def repair(data: bytes) -> bytes:
    """Return a vmstate with a right checksum."""
    return data[:-8] + struct.pack("<Q", _crc64(data[:-8]))


def read(data: bytes, folder: Path) -> None:
    """Read a snapshot of two files."""
    memory(folder / "mem")
    (folder / "vmstate").write_bytes(data)
    read_image(folder / "mem", "firecracker")
