"""Pages sent on the main connection of a migration without multifd."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE
from snapmig.images.qemu.records import RAM_CONTINUE, RAM_PAGE, STRIDE
from snapmig.migration.compression import WireCompression
from snapmig.migration.sender import ChannelSender
from snapmig.migration.tls import SecureConnection

__all__ = ("StreamParts", "StreamSender")


class StreamParts(NamedTuple):
    """
    Bytes of the main connection around the pages.

    With TLS only one process can send on a connection, so the sender of pages has them too.
    """

    before: bytes
    after: bytes


class StreamSender(ChannelSender):
    """
    Sends pages as a classic stream has them, each after its address.

    :param connection: shared with the parent process, which reads the destination's answers from it
    """

    def __init__(
        self, connection: int | SecureConnection, parts: StreamParts, still_s: float
    ) -> None:
        super().__init__(connection, 0, WireCompression.NONE, still_s)
        self._name = "main connection"
        self._parts = iter(parts)
        self._block = b""

    def send(self, block: bytes, offsets: npt.NDArray[np.int64], payload: Any) -> int:
        """Send pages of a block; return the number of bytes."""
        records = np.empty((len(offsets), STRIDE), np.uint8)
        words = offsets.astype(np.uint64) | np.uint64(RAM_PAGE | RAM_CONTINUE)
        records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
        records[:, 8:] = np.frombuffer(payload, np.uint8).reshape(-1, PAGE_SIZE)
        view, head = records.reshape(-1).data, b""
        if block != self._block:
            self._block = block
            head = struct.pack(">Q", int(offsets[0]) | RAM_PAGE) + bytes([len(block)]) + block
            view = view[8:]
        self._send(head, view)
        return len(head) + len(view)

    def sync(self, _count: int) -> None:
        """Send what comes before the pages, the second time what comes after them."""
        self._send(next(self._parts), memoryview(b""))
