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
        self._rows: list[tuple[Any, ...]] = []
        self._same: list[int] = []
        self._parent: Records | None = None
        self._with_digests = with_digests
        self.page_digests: dict[int, bytes] = {}

    def add(self, at: int, offset: int, packet: EncodedPacket) -> None:
        """Add a packet stored at a file offset, at its place in the batch."""
        kinds, encoding, _, size, checksum, digest, page_digests, nonce, tag, _ = packet
        self._rows.append((at, offset, size, encoding, checksum, digest, kinds, nonce, tag))
        if self._with_digests and (size or kinds.any()):
            self.page_digests[at] = page_digests

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
        if self._rows:
            self._fill_others(records)
        if self._sealer is not None:
            self._seal(self._sealer, records)
        if digests := self.page_digests:
            records["page_digests_checksum"][list(digests)] = [*map(crc32, digests.values())]

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
        places, *numbers, digests, kinds, nonces, tags = zip(*self._rows, strict=True)
        at = list(places)
        names = ("offset", "stored_size", "encoding", "stored_checksum")
        for name, column in zip(names, numbers, strict=True):
            records[name][at] = column
        records["digest"][at] = np.frombuffer(b"".join(digests), "V16")
        width = records.dtype["kinds"].shape[0] * 4
        records["kinds"][at] = pack_kinds(kinds, width)
        if self._sealer is not None:
            records["nonce"][at] = _voids(nonces, NONCE_SIZE)
            records["tag"][at] = _voids(tags, TAG_SIZE)


def _voids(values: Sequence[bytes], size: int) -> Any:
    # Packets without stored bytes have none.
    return np.frombuffer(b"".join(each.ljust(size, b"\0") for each in values), f"V{size}")
