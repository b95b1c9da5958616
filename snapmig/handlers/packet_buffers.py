"""
Buffers of one packet each, in memory that all processes share.

The parent process fills them with pages of a stream, workers read them.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.system.files import descriptor_path
from snapmig.system.libc import punch_hole

__all__ = ("PacketBuffers", "SharedBuffers")

_ADDRESSES = 2 << 30
"""Bytes of all buffers together. Most of them stay holes."""
_LEAST = 256


class SharedBuffers:
    """
    Buffers without pages, there until closed; a context manager.

    :ivar path: by which other processes open them
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("snapmig-packets", os.MFD_CLOEXEC)
        self.path = descriptor_path(self._fd)

    def make_for(self, geometry: Geometry) -> None:
        """Make buffers for the packets of a snapshot."""
        size = geometry.packet_pages * PAGE_SIZE
        count = max(_LEAST, min(_ADDRESSES // size, 2 * geometry.packet_count))
        os.ftruncate(self._fd, count * (size + geometry.packet_pages))

    def __enter__(self) -> SharedBuffers:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)


class PacketBuffers:
    """
    The buffers, in one process.

    :param packet_pages: pages in a packet
    :ivar pages: contents, as ``(buffers, pages, 4096)``
    :ivar masks: True for the pages that a buffer has, as ``(buffers, pages)``
    """

    def __init__(self, path: str, packet_pages: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        mapped = mmap.mmap(self._fd, size)
        self._size = packet_pages * PAGE_SIZE
        count = size // (self._size + packet_pages)
        contents = np.frombuffer(mapped, np.uint8, count * self._size)
        self.pages = contents.reshape(count, packet_pages, PAGE_SIZE)
        masks = np.frombuffer(mapped, np.bool_, count * packet_pages, contents.nbytes)
        self.masks = masks.reshape(count, packet_pages)

    def __len__(self) -> int:
        return len(self.pages)

    def free(self, number: int) -> None:
        """Give the memory of a buffer's pages back to the system."""
        punch_hole(self._fd, number * self._size, self._size)

    def close(self) -> None:
        """Close the file; the mapping ends with the last array."""
        os.close(self._fd)
