"""A destination's messages: what it has received, and the pages that it asks for."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from snapmig.images.qemu.state import QemuBlock
from snapmig.migration.postcopy import RequestReader
from snapmig.migration.recovery import read_received

BLOCKS = ((b"ram", 1 << 20), (b"rom", 64 << 10))
LISTED = [QemuBlock(name.decode(), size) for name, size in BLOCKS]
END = struct.pack(">Q", 0x0123456789ABCDEF)
MOST = 1 << 17


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


def _bitmap(name: bytes, size: int) -> bytes:
    body = bytes([len(name)]) + name
    bits = b"\x0f" * (-(-size // 4096 // 64) * 8)
    return _message(5, body) + struct.pack(">Q", len(bits)) + bits + END


def seeds() -> list[bytes]:
    """Return lists of all blocks, with requests between them."""
    asked = _message(3, struct.pack(">QI", 4096, 4096) + b"\3rom")
    again = _message(4, struct.pack(">QI", 8192, 4096))
    lists = [_bitmap(*block) for block in BLOCKS]
    return [
        b"".join(lists),
        asked + lists[1] + again + lists[0],
        asked + again + lists[0] + lists[1],
    ]


def read(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Read until all blocks are listed."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MOST)
    ours.sendall(data[:MOST])
    ours.close()
    requests = RequestReader(LISTED)

    def take(kind: int, body: bytes) -> None:
        found = requests.read(kind, body)
        assert found is None or 0 <= found.offset < BLOCKS[found.block][1]

    try:
        masks = read_received(theirs, BLOCKS, take)
        assert {name: len(mask) * 4096 for name, mask in masks.items()} == dict(BLOCKS)
    finally:
        theirs.close()
