"""Packets on multifd channels and words on the main channel as bytes; see QEMU's multifd.h."""

from __future__ import annotations

import struct
from collections.abc import Sequence

PAGE = 4096
PAGES = 128
"""Page offsets in a packet's header, used or not: 512 KiB of pages."""
MAGIC = 0x11223344
VERSION = 1
SYNC, ZLIB, ZSTD, QPL, UADK, QATZIP, DEVICE_STATE = 1, 2, 4, 8, 16, 32, 64
COMPRESSIONS = {"none": 0, "zlib": ZLIB, "zstd": ZSTD}

INIT = struct.Struct(">II16sB7x32x")
HEADER = struct.Struct(">IIIIIIQII24x256s")
STATE_HEADER = struct.Struct(">III256sII")
OFFSETS = struct.Struct(f">{PAGES}Q")
RAM_SIZE = HEADER.size + OFFSETS.size

FIELDS = {
    "magic": (0, ">I"),
    "version": (4, ">I"),
    "flags": (8, ">I"),
    "pages_alloc": (12, ">I"),
    "normal_pages": (16, ">I"),
    "next_packet_size": (20, ">I"),
    "packet_num": (24, ">Q"),
    "zero_pages": (32, ">I"),
    "ramblock": (64, "256s"),
}
"""Offset and form of each field of a packet with pages."""

ZERO, MEM_SIZE, DATA, EOS, CONTINUE, FLUSH = 0x02, 0x04, 0x08, 0x10, 0x20, 0x200
OPEN_RETURN_PATH, PING, POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_RUN = 1, 2, 3, 4, 5
POSTCOPY_DISCARD, PACKAGED, POSTCOPY_RESUME, RECV_BITMAP, SWITCHOVER_START = 6, 7, 9, 10, 11
SHUT, PONG = 1, 2


def init(number: int, uuid: bytes = bytes(16)) -> bytes:
    """Return the first packet of a channel."""
    return INIT.pack(MAGIC, VERSION, uuid, number)


def packet(
    block: bytes,
    normal: Sequence[int],
    zero: Sequence[int] = (),
    *,
    payload_size: int,
    flags: int = 0,
    number: int = 0,
    alloc: int = PAGES,
) -> bytes:
    """
    Return the header of a packet with its list of offsets.

    :param normal: offsets of pages in the payload
    :param zero: offsets of pages of zeros
    """
    offsets = [*normal, *zero]
    head = HEADER.pack(
        MAGIC,
        VERSION,
        flags,
        alloc,
        len(normal),
        payload_size,
        number,
        len(zero),
        0,
        block,
    )
    return head + OFFSETS.pack(*offsets, *[0] * (PAGES - len(offsets)))


def device_state(name: bytes, instance: int, data: bytes, flags: int = DEVICE_STATE) -> bytes:
    """Return a packet with a device's state."""
    return STATE_HEADER.pack(MAGIC, VERSION, flags, name, instance, len(data)) + data


def changed(data: bytes, **fields: int | bytes) -> bytes:
    """Return a packet with other values in some of :data:`FIELDS`."""
    made = bytearray(data)
    for name, value in fields.items():
        offset, form = FIELDS[name]
        struct.pack_into(form, made, offset, value)
    return bytes(made)


def with_offset(data: bytes, place: int, offset: int) -> bytes:
    """Return a packet with another offset at a place of its list."""
    made = bytearray(data)
    struct.pack_into(">Q", made, HEADER.size + 8 * place, offset)
    return bytes(made)


def word(value: int) -> bytes:
    """Return a word of the RAM section."""
    return struct.pack(">Q", value)


def command(number: int, data: bytes = b"") -> bytes:
    """Return a command on the main channel."""
    return struct.pack(">BHH", 8, number, len(data)) + data
