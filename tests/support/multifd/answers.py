"""Messages of a destination to its source, on the main connection; see QEMU's migration.c."""

from __future__ import annotations

import struct

SHUT, PONG, REQ_PAGES_ID, REQ_PAGES, RECV_BITMAP, RESUME_ACK, SWITCHOVER_ACK = range(1, 8)


def message(kind: int, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a message; its stated length may be another than that of its data."""
    return struct.pack(">HH", kind, len(data) if length is None else length) + data


def shut(status: int) -> bytes:
    """Return the last message: 0 is success."""
    return message(SHUT, struct.pack(">I", status))


def pong(number: int) -> bytes:
    """Return the answer to a ping."""
    return message(PONG, struct.pack(">I", number))


def request(start: int, length: int, block: bytes | None = None) -> bytes:
    """Return a postcopy destination's request for pages; of the last named block without a name."""
    name = b"" if block is None else bytes([len(block)]) + block
    kind = REQ_PAGES if block is None else REQ_PAGES_ID
    return message(kind, struct.pack(">QI", start, length) + name)
