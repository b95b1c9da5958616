"""
Page digests: a part of a snapshot with the XXH3-128 of each page, zeros for zero pages.

With them a save, or a comparison, finds the equal pages of a packet in two snapshots without
decoding either. This module makes, finds, checks and compares them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from snapmig.checksums import crc32, xxh3_128
from snapmig.container.format import PAGE_DIGEST_SIZE, page_digests_size
from snapmig.container.index import Records, StoredPacket
from snapmig.container.sealed import PacketSealer
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Mask

__all__ = ("PageDigestReader", "digest_pages", "digest_rows", "wrong_page")

Rows = npt.NDArray[np.uint64]
"""Digests as ``(pages, 2)``."""

READ_AT_ONCE = 16 << 10
"""Bytes of digests, those of 4 MiB of RAM: one read per batch of a save."""


def digest_pages(data: Bytes, in_use: Mask) -> bytes:
    """
    Return the digests of pages, 16 bytes each, zeros for zero pages.

    :param data: the pages other than zero, as ``(n, 4096)``
    :param in_use: mask of those pages
    """
    if not len(data):
        return bytes(len(in_use) * PAGE_DIGEST_SIZE)
    found = b"".join(map(xxh3_128, data))
    used = in_use.tobytes()
    first, end = used.find(1), used.rfind(1) + 1
    if end - first == len(data):  # neighbours
        return found.rjust(end * PAGE_DIGEST_SIZE, b"\0").ljust(len(used) * PAGE_DIGEST_SIZE, b"\0")
    rows = np.zeros((len(in_use), 2), np.uint64)
    rows[in_use] = digest_rows(found)
    return rows.tobytes()


def digest_rows(digests: bytes) -> Rows:
    """Return digests as ``(pages, 2)`` words, for comparing."""
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def wrong_page(packet: StoredPacket, data: Bytes, stored: bytes) -> CorruptSnapshotError | None:
    """
    Return an error for the first page with a digest other than its own, None if there is none.

    :param data: the packet's pages other than zero, as ``(n, 4096)``
    :param stored: the digests of all pages of a full packet
    """
    computed = digest_pages(data, packet.in_use)
    if computed == stored:
        return None
    page = int(np.flatnonzero((digest_rows(computed) != digest_rows(stored)).any(axis=1))[0])
    place = slice(page * PAGE_DIGEST_SIZE, (page + 1) * PAGE_DIGEST_SIZE)
    message = f"digest of page {page} is {stored[place].hex()}, computed {computed[place].hex()}"
    return CorruptSnapshotError(message, packet=packet.packet)


class PageDigestReader:
    """
    The page digests of one snapshot, a few packets at a time.

    :param read: returns bytes by offset and length
    :param offset: start of the digests in the file
    :param shown: the snapshot's display name
    :param sealer: of a sealed snapshot
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        offset: int,
        packet_size: int,
        packet_count: int,
        shown: str,
        sealer: PacketSealer | None = None,
    ) -> None:
        self._read = read
        self._sealer = sealer
        self._offset = offset
        self._size = page_digests_size(packet_size)
        self._count = packet_count
        self._shown = shown
        self._step = max(1, READ_AT_ONCE // self._size)
        self._first = -1
        self._known = b""

    @property
    def place(self) -> tuple[int, int]:
        """Offset and length of all digests."""
        return self._offset, self._count * self._size

    def of(self, packet: StoredPacket) -> bytes:
        """
        Return the digests of all pages of a full packet, 16 bytes each, checked.

        :param packet: from its checked record
        :raises CorruptSnapshotError: a wrong checksum, or the file ends too early
        """
        if not (packet.stored_pages or packet.needs_parent):
            return bytes(self._size)
        checksum, nonce, tag = packet.page_digests_checksum, packet.nonce, packet.page_digests_tag
        return self._checked(packet.packet, checksum, nonce, tag)

    def of_records(self, records: Records) -> list[bytes]:
        """Return the digests of packets with pages other than zero, by their checked records."""
        names = ("packet", "page_digests_checksum", "nonce", "page_digests_tag")
        columns = (records[name].tolist() for name in names)
        return [self._checked(*values) for values in zip(*columns, strict=True)]

    def _checked(self, number: int, checksum: int, nonce: bytes, tag: bytes) -> bytes:
        digests = self._bytes(number)
        computed = crc32(digests)
        if len(digests) == self._size and computed == checksum:
            if self._sealer is None:
                return digests
            try:
                return self._sealer.open_page_digests(number, nonce, tag, digests)
            except CorruptSnapshotError as error:
                error.path = self._shown
                raise
        if len(digests) < self._size:
            message = f"file ends after {len(digests)} of {self._size} bytes of page digests"
        else:
            message = f"checksum of the page digests is {checksum:#010x}, computed {computed:#010x}"
        offset = self._offset + number * self._size
        raise CorruptSnapshotError(message, packet=number, path=self._shown, offset=offset)

    def rows(self, packet: StoredPacket) -> Rows:
        """
        Return the digests of a packet's page contents, as ``(pages, 2)`` words.

        A page of zeros, stored or not, has the digest of zeros here.

        :raises CorruptSnapshotError: see :meth:`of`
        """
        return np.where(packet.in_use[:, None], digest_rows(self.of(packet)), _ZERO_PAGE)

    def _bytes(self, number: int) -> bytes:
        first = number - number % self._step
        if first != self._first:
            count = min(self._step, self._count - first)
            self._known = self._read(self._offset + first * self._size, count * self._size)
            self._first = first
        at = (number - first) * self._size
        return self._known[at : at + self._size]


_ZERO_PAGE = digest_rows(xxh3_128(bytes(PAGE_SIZE)))
