"""Packets on a multifd channel, after the first one that opens it."""

from __future__ import annotations

import socket
import zlib
from pathlib import Path

from snapmig.geometry import Geometry, RamBlock
from snapmig.migration.channel import Channel
from snapmig.migration.wire import HELLO_SIZE, Blocks, unpack_hello
from tests.support.multifd.wire import COMPRESSIONS, OFFSETS, PAGES, SYNC, init, packet

GEOMETRY = Geometry((RamBlock("ram", 1 << 20), RamBlock("rom", 64 << 10)), 64 << 10)
MOST = 1 << 18
"""Bytes that a socket's buffer takes without a reader."""


def seeds() -> list[bytes]:
    """Return packets of pages, of zeros, compressed, and barriers."""
    pages = b"x" * 8192
    plain = packet(b"ram", [0, 4096], [8192], payload_size=8192) + pages
    packed = zlib.compressobj()
    stream = packed.compress(pages) + packed.flush(zlib.Z_SYNC_FLUSH)
    flags = COMPRESSIONS["zlib"]
    compressed = packet(b"rom", [0, 4096], payload_size=len(stream), flags=flags) + stream
    barrier = packet(b"", [], payload_size=0, flags=SYNC, alloc=PAGES)
    assert len(barrier) > OFFSETS.size
    return [init(0) + plain + barrier, init(1) + compressed + barrier, init(0) + barrier * 2]


def read(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Read a channel to its end."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MOST)
    ours.sendall(data[HELLO_SIZE : HELLO_SIZE + MOST])
    ours.close()
    channel = Channel(theirs.detach(), 0, Blocks(GEOMETRY))
    try:
        unpack_hello(data[:HELLO_SIZE].ljust(HELLO_SIZE, b"\0"), 2)
        while (found := channel.next(0)) is not None:
            assert len(found.pages) == len(found.data)
            assert all(0 <= offset < GEOMETRY.ram_size for offset in (*found.data, *found.zeros))
    finally:
        channel._connection.close()
