"""Index records and page digests of a batch of packets being saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from snapmig.checksums import crc32
from snapmig.container.format import PageKind
from snapmig.container.index import Records, pack_kinds
from snapmig.container.sealed import PacketSealer
from snapmig.encodings.packet import EncodedPacket
from snapmig.pages import Kinds
from snapmig.sealing.file_key import NONCE_SIZE, TAG_SIZE

__all__ = ("Batch",)

ONE_EACH = 0x55
"""The low bits of the kinds of four pages in a byte."""


class Batch:
    """
    Records of the packets of a batch that have pages, column by column.

    :param with_digests: write page digests too
    :param sealer: of a sealed snapshot
    :ivar page_digests: digests of all pages of a full packet, by its place in the batch
    """

    def __init__(self, *, with_digests: bool, sealer: PacketSealer | None = None) -> None:
        self._sealer = sealer
        self._at: list[int] = []
        self._rows: list[tuple[int, int, int, int]] = []
        self._digests: list[bytes] = []
        self._kinds: list[Kinds] = []
        self._seals: list[tuple[bytes, bytes]] = []
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
        self._seals.append((packet.nonce, packet.tag))
        if self._with_digests and packet.kinds.any():
            self.page_digests[at] = packet.page_digests

    def add_same(self, at: list[int], parent: Records, page_digests: list[bytes]) -> None:
        """
        Add packets equal to the parent's, and not zero, by their places in the batch.

        :param parent: the parent's records of these
        :param page_digests: digests of all pages of each packet, if they are written
        """
        self._same, self._parent = at, parent
        if self._with_digests:
            self.page_digests.update(zip(at, page_digests, strict=True))

    def fill(self, records: Records) -> None:
        """Write the added packets into the batch's records."""
        if self._parent is not None:
            stored = self._parent["kinds"]
            in_use = (stored | stored >> 1) & ONE_EACH
            records["kinds"][self._same] = in_use * PageKind.SAME_AS_PARENT
            records["digest"][self._same] = self._parent["digest"]
        if self._at:
            self._fill_others(records)
        if self._sealer is not None:
            self._seal(self._sealer, records)
        for at, digests in self.page_digests.items():
            records["page_digests_checksum"][at] = crc32(digests)

    def _seal(self, sealer: PacketSealer, records: Records) -> None:
        # Packets without stored bytes have a nonce for their digests only.
        bare = records["kinds"].any(axis=1) & (records["nonce"] == np.void(bytes(NONCE_SIZE)))
        fresh = os.urandom(NONCE_SIZE * int(np.count_nonzero(bare)))
        records["nonce"][bare] = np.frombuffer(fresh, f"V{NONCE_SIZE}")
        for at, digests in self.page_digests.items():
            number, nonce = int(records["packet"][at]), records["nonce"][at].tobytes()
            stored, tag = sealer.seal_page_digests(number, nonce, digests)
            self.page_digests[at] = stored
            records["page_digests_tag"][at] = np.void(tag)

    def _fill_others(self, records: Records) -> None:
        columns = zip(*self._rows, strict=True)
        names = ("offset", "stored_size", "encoding", "stored_checksum")
        for name, column in zip(names, columns, strict=True):
            records[name][self._at] = column
        records["digest"][self._at] = np.frombuffer(b"".join(self._digests), "V16")
        width = records.dtype["kinds"].shape[0] * 4
        records["kinds"][self._at] = pack_kinds(self._kinds, width)
        if self._sealer is not None:
            nonces, tags = zip(*self._seals, strict=True)
            records["nonce"][self._at] = _voids(nonces, NONCE_SIZE)
            records["tag"][self._at] = _voids(tags, TAG_SIZE)


def _voids(values: Sequence[bytes], size: int) -> Any:
    # Packets without stored bytes have none.
    return np.frombuffer(b"".join(each.ljust(size, b"\0") for each in values), f"V{size}")
