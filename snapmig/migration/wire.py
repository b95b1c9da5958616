"""
Packets of multifd channels: their fields, and every check on them.

QEMU's source is the specification: migration/multifd.h and multifd.c. All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.migration.compression import WireCompression

__all__ = (
    "CHANNEL_MAGIC",
    "HEAD_SIZE",
    "HELLO_SIZE",
    "PACKET_BYTES",
    "SYNC",
    "Blocks",
    "Hello",
    "MigrationError",
    "PacketHead",
    "RamPacket",
    "unpack_hello",
)

CHANNEL_MAGIC = 0x11223344
_VERSION = 1
_HELLO = struct.Struct(">II16sB39x")
HELLO_SIZE = _HELLO.size
_HEAD = struct.Struct(">III")
HEAD_SIZE = _HEAD.size
"""Bytes of a packet to read first: they tell how many follow."""

_REST = struct.Struct(">IIIQI28x256s")
PACKET_BYTES = 512 << 10
"""Bytes of RAM in a full packet, whatever the size of a target page."""

SYNC = 0x01
_COMPRESSION = 0x3E
_DEVICE_STATE = 0x40
_LARGEST_PAYLOAD = 2 * PACKET_BYTES
"""Bytes of a packet's compressed pages: more than any codec makes of incompressible ones."""


class MigrationError(SnapmigError):
    """A migration sends something unexpected, ends early, or stands still."""


_READABLE = (WireCompression.NONE, WireCompression.ZLIB, WireCompression.ZSTD)


class Hello(NamedTuple):
    """
    The first packet on a channel.

    :param uuid: of the guest, 16 bytes
    :param channel: its number, from 0
    """

    uuid: bytes
    channel: int


def unpack_hello(raw: bytes, channels: int) -> Hello:
    """
    Return the packet that opens a channel.

    :param channels: their expected number
    :raises MigrationError: it is not such a packet, or the channel's number is too large
    """
    magic, version, uuid, channel = _HELLO.unpack(raw)
    _check_magic(magic, version)
    if channel >= channels:
        raise MigrationError(
            f"channel {channel} was opened, more than expected: 0 to {channels - 1}"
        )
    return Hello(uuid, channel)


def _check_magic(magic: int, version: int) -> None:
    if magic != CHANNEL_MAGIC:
        message = f"packet starts with {magic:#010x}, expected {CHANNEL_MAGIC:#010x}"
        raise MigrationError(message)
    if version != _VERSION:
        raise MigrationError(f"packet has version {version}, expected {_VERSION}")


class Blocks:
    """
    RAM blocks by name: where each begins, in RAM offsets.

    :param target_page: bytes of a page of the guest's processors
    """

    def __init__(self, geometry: Geometry, target_page: int = PAGE_SIZE) -> None:
        self.target_page = target_page
        self._places = {
            block.name.encode(): (geometry.block_start(number), block.size)
            for number, block in enumerate(geometry.blocks)
        }

    @property
    def pages_per_packet(self) -> int:
        """Target pages in a full packet."""
        return PACKET_BYTES // self.target_page

    @property
    def sizes(self) -> Mapping[bytes, tuple[int, int]]:
        """For each name the RAM offset of the block's start, and its size in bytes."""
        return self._places

    def ram_offsets(self, name: bytes, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """
        Return the RAM offsets of pages in a block.

        :raises MigrationError: there is no such block, or a page is not in it
        """
        place = self._places.get(name)
        if place is None:
            message = f"packet has pages of RAM block {_text(name)}, which is not in the list"
            raise MigrationError(message)
        start, size = place
        unaligned = int(np.bitwise_or.reduce(offsets)) % self.target_page
        if offsets.min() < 0 or offsets.max() > size - self.target_page or unaligned:
            raise _not_in_block(name, size, offsets, self.target_page)
        return offsets + start


class PacketHead(NamedTuple):
    """
    The first fields of a packet.

    :param rest: bytes of the packet after them, without its payload
    """

    sync: bool
    compression: WireCompression
    rest: int

    @classmethod
    def unpack(cls, raw: bytes, blocks: Blocks) -> PacketHead:
        """
        Return the head of a packet.

        :raises MigrationError: it is not a packet
        :raises UnsupportedError: it holds device state, or pages in a compression unknown here
        """
        magic, version, flags = _HEAD.unpack(raw)
        _check_magic(magic, version)
        if flags & _DEVICE_STATE:
            message = (
                "a device sends its state over multifd channels, and no file of QEMU's could give "
                "it back: set the property x-migration-multifd-transfer=off of the VFIO device"
            )
            raise UnsupportedError(message)
        if flags & ~(SYNC | _COMPRESSION):
            raise UnsupportedError(f"packet has flags {flags:#x}, which are not known here")
        return cls(
            bool(flags & SYNC),
            _compression(flags & _COMPRESSION),
            _REST.size + blocks.pages_per_packet * 8,
        )


def _compression(flag: int) -> WireCompression:
    try:
        found = WireCompression(flag)
    except ValueError:
        raise UnsupportedError(f"packet has compression {flag:#x}, not known here") from None
    if found not in _READABLE:
        message = (
            f"packets are compressed by {found.name.lower()}, which needs its library; expected "
            "none, zlib or zstd: set multifd-compression"
        )
        raise UnsupportedError(message)
    return found


class RamPacket(NamedTuple):
    """
    Pages of one RAM block.

    :param data: RAM offsets of the target pages in the payload, in its order
    :param zeros: RAM offsets of zero pages
    :param payload_size: bytes that follow
    """

    data: npt.NDArray[np.int64]
    zeros: npt.NDArray[np.int64]
    payload_size: int

    @classmethod
    def unpack(cls, raw: bytes | bytearray, head: PacketHead, blocks: Blocks) -> RamPacket:
        """
        Return a packet.

        :param raw: its bytes after the head, without the payload
        :raises MigrationError: an impossible field
        """
        allocated, normal, size, _number, zero, name = _REST.unpack_from(raw)
        count = normal + zero
        most = blocks.pages_per_packet
        if allocated > most or count > allocated:
            least = min(allocated, most)
            message = f"packet has {count} pages in a list of {allocated}, expected at most {least}"
            raise MigrationError(message)
        if not count:  # up to QEMU 8.2 other fields are those of the packet before
            return cls(_NONE, _NONE, 0)
        plain = normal * blocks.target_page
        if head.compression == WireCompression.NONE and normal and size != plain:
            raise MigrationError(f"packet of {normal} pages has {size} bytes, expected {plain}")
        if size > _LARGEST_PAYLOAD or (normal and not size):
            message = f"packet of {normal} pages has {size} bytes, expected 1 to {_LARGEST_PAYLOAD}"
            raise MigrationError(message)
        if b"\0" not in name:
            raise MigrationError("packet has a RAM block's name without an end")
        offsets = np.frombuffer(raw, ">u8", count, _REST.size).astype(np.int64)
        found = blocks.ram_offsets(name.partition(b"\0")[0], offsets)
        ascending = (found[1:] > found[:-1]).all()  # far cheaper, and the usual case
        if not ascending and len(np.unique(found)) < count:
            raise MigrationError(f"packet has a page of RAM block {_text(name)} twice")
        return cls(found[:normal], found[normal:], size if normal else 0)


_NONE = np.empty(0, np.int64)


def _text(name: bytes) -> str:
    return repr(name.partition(b"\0")[0].decode(errors="backslashreplace"))


def _not_in_block(
    name: bytes, size: int, offsets: npt.NDArray[np.int64], page: int
) -> MigrationError:
    wrong = (offsets < 0) | (offsets > size - page) | (offsets % page != 0)
    found = int(offsets[wrong.argmax()]) & (1 << 64) - 1
    return MigrationError(
        f"packet has a page at {found:#x} of RAM block {_text(name)}, expected whole pages of its "
        f"{size:#x} bytes"
    )
