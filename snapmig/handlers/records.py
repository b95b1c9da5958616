"""Index records and page digests of a batch of packets being saved."""

from __future__ import annotations

import numpy as np

from snapmig.checksums import crc32
from snapmig.container.format import PAGE_DIGEST_SIZE, PageKind
from snapmig.container.index import Records, pack_kinds
from snapmig.encodings.packet import EncodedPacket
from snapmig.pages import Kinds

__all__ = ("Batch",)

ALL_SAME = PageKind.SAME_AS_PARENT * 0x55
"""The kinds of four pages in a byte, all of them the parent's."""


class Batch:
    """
    Records of the packets of a batch that have pages, column by column.

    :param with_digests: write page digests too
    :ivar page_digests: digests of all pages of a full packet, by its place in the batch
    """

    def __init__(self, *, with_digests: bool) -> None:
        self._at: list[int] = []
        self._rows: list[tuple[int, int, int, int]] = []
        self._digests: list[bytes] = []
        self._kinds: list[Kinds] = []
        self._same: list[int] = []
        self._parent: Records | None = None
        self._with_digests = with_digests
        self.page_digests: dict[int, bytes] = {}

    def add(self, at: int, offset: int, packet: EncodedPacket) -> None:
        """Add a packet stored at a file offset, at its place in the batch."""
        self._at.append(at)
        self._rows.append((offset, packet.stored_size, packet.encoding, packet.stored_checksum))
        self._digests.append(packet.digest)
        self._kinds.append(packet.kinds)
        if self._with_digests and packet.kinds.any():
            self.page_digests[at] = packet.page_digests

    def add_same(self, at: list[int], parent: Records, page_digests: list[bytes]) -> None:
        """
        Add packets equal to the parent's and without zero pages, by their places in the batch.

        :param parent: the parent's records of the batch
        :param page_digests: digests of all pages of each packet, if they are written
        """
        self._same, self._parent = list(at), parent
        self.page_digests.update(zip(at, page_digests, strict=False))

    def fill(self, records: Records) -> None:
        """Write the added packets into the batch's records."""
        if self._same and self._parent is not None:
            records["kinds"][self._same] = ALL_SAME
            records["digest"][self._same] = self._parent["digest"][self._same]
        if self._at:
            self._fill_others(records)
        for at, digests in self.page_digests.items():
            records["page_digests_checksum"][at] = crc32(digests)

    def _fill_others(self, records: Records) -> None:
        columns = zip(*self._rows, strict=True)
        names = ("offset", "stored_size", "encoding", "stored_checksum")
        for name, column in zip(names, columns, strict=True):
            records[name][self._at] = column
        records["digest"][self._at] = np.frombuffer(b"".join(self._digests), "V16")
        width = records.dtype["kinds"].shape[0] * 4
        records["kinds"][self._at] = pack_kinds(self._kinds, width)
        for at in self._at:
            # The digests of a full packet, even if the block ends earlier.
            if at in self.page_digests:
                padded = self.page_digests[at].ljust(width * PAGE_DIGEST_SIZE, b"\0")
                self.page_digests[at] = padded
