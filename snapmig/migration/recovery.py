"""The start of a postcopy migration's second connection: pages that have come are asked for."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from snapmig.geometry import PAGE_SIZE
from snapmig.migration.dialing import Connection
from snapmig.migration.postcopy import pack_command
from snapmig.migration.return_path import Command, Message
from snapmig.migration.wire import MigrationError
from snapmig.pages import Mask
from snapmig.system.signals import raise_if_cancelled

__all__ = ("RESUME", "ask_for_received", "read_received")

RESUME = pack_command(Command.POSTCOPY_RESUME)
"""Lets the guest go on asking for pages."""

_END_MARK = 0x0123456789ABCDEF
_STILL_S = 60.0
_MOMENT_S = 0.1


def ask_for_received(blocks: Sequence[tuple[bytes, int]]) -> bytes:
    """Return the bytes that ask for the pages received of RAM blocks: names and sizes."""
    return b"".join(
        pack_command(Command.RECV_BITMAP, bytes([len(name)]) + name) for name, _ in blocks
    )


def read_received(
    connection: Connection,
    blocks: Sequence[tuple[bytes, int]],
    take: Callable[[int, bytes], object],
) -> Mapping[bytes, Mask]:
    """
    Return a mask of the pages received of each RAM block.

    :param connection: on which :func:`ask_for_received` has asked
    :param take: called with other messages
    :raises MigrationError: the destination has gone, says nothing, or something impossible
    """
    reader = _Reader(connection)
    sizes, found = dict(blocks), dict[bytes, Mask]()
    while len(found) < len(sizes):
        kind, length = struct.unpack(">HH", reader.read(4))
        body = reader.read(length)
        if kind != Message.RECV_BITMAP:
            take(kind, body)
            continue
        name = body[1:]
        if name not in sizes or body[0] != len(name):
            raise MigrationError("the destination lists pages of a RAM block not asked for")
        found[name] = _read_mask(reader, sizes[name] // PAGE_SIZE)
    return found


def _read_mask(reader: _Reader, pages: int) -> Mask:
    expected = -(-pages // 64) * 8
    size = int.from_bytes(reader.read(8))
    if size != expected:
        message = f"the destination lists pages in {size} bytes, expected {expected}"
        raise MigrationError(message)
    bits = np.frombuffer(reader.read(size), np.uint8)
    if int.from_bytes(reader.read(8)) != _END_MARK:
        raise MigrationError("the destination's list of pages has no end mark")
    return np.unpackbits(bits, count=pages, bitorder="little").view(np.bool_)


class _Reader:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.settimeout(_MOMENT_S)

    def read(self, size: int) -> bytes:
        found = bytearray()
        deadline = time.monotonic() + _STILL_S
        while len(found) < size:
            raise_if_cancelled()
            try:
                part = self._connection.recv(min(size - len(found), 1 << 20))
            except (TimeoutError, BlockingIOError):
                if time.monotonic() > deadline:
                    message = f"the destination lists no pages in {_STILL_S:.0f} s"
                    raise MigrationError(message) from None
                continue
            except OSError as error:
                raise MigrationError(f"main connection failed: {error.strerror}") from error
            if not part:
                raise MigrationError("the destination closed the connection without an answer")
            found += part
        return bytes(found)
