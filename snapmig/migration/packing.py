"""
Packets of multifd channels as a source writes them.

The fields are those of :mod:`snapmig.migration.wire`.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE
from snapmig.migration.compression import WireCompression
from snapmig.migration.wire import CHANNEL_MAGIC, PACKET_BYTES, SYNC

__all__ = ("PACKET_PAGES", "pack_hello", "pack_pages", "pack_sync")

PACKET_PAGES = PACKET_BYTES // PAGE_SIZE
"""Pages in a full packet, of a guest whose processors have pages of 4 KiB."""

_VERSION = 1
_FIELDS = struct.Struct(">IIIIIIQI28x256s")
_SIZE = _FIELDS.size + PACKET_PAGES * 8


def pack_hello(channel: int, uuid: bytes) -> bytes:
    """
    Return the packet that opens a channel.

    :param uuid: of the guest, 16 bytes, zeros if it has none
    """
    return struct.pack(">II16sB39x", CHANNEL_MAGIC, _VERSION, uuid, channel)


def pack_pages(
    block: bytes, offsets: npt.NDArray[np.int64], size: int, compression: WireCompression
) -> bytes:
    """
    Return a packet without its payload.

    :param block: name of the RAM block
    :param offsets: of its pages in the block, in the order of the payload
    :param size: of the payload in bytes
    """
    count = len(offsets)
    fields = (CHANNEL_MAGIC, _VERSION, compression, PACKET_PAGES, count, size, 0, 0, block)
    listed = offsets.astype(">u8").tobytes()
    return _FIELDS.pack(*fields) + listed.ljust(PACKET_PAGES * 8, b"\0")


def pack_sync(compression: WireCompression) -> bytes:
    """Return a packet that is a barrier, without pages: QEMU 9.2.0 loses those beside one."""
    fields = (CHANNEL_MAGIC, _VERSION, SYNC | compression, 0, 0, 0, 0, 0, b"")
    return _FIELDS.pack(*fields).ljust(_SIZE, b"\0")
