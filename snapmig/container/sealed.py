"""
Packets, digests and page digests of a sealed snapshot: signed, or encrypted. No I/O.

docs/format.md, "Sealing", has the rules. Each process makes its own :class:`PacketSealer`.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import numpy as np

from snapmig.checksums import crc32
from snapmig.container.index import Records, StoredPacket, pack_kinds
from snapmig.errors import CorruptSnapshotError
from snapmig.pages import Kinds
from snapmig.sealing.file_key import NONCE_SIZE, TAG_SIZE, FileKey, SealedError, opened
from snapmig.sealing.library import aes_block, aes_gcm
from snapmig.system.files import Buffer

__all__ = ("PacketSealer", "SealedPacket")

_ABOUT = struct.Struct("<QIBBH")
_NUMBER = struct.Struct("<Q")
_BLOCK_SIZE = 16


class SealedPacket(NamedTuple):
    """Stored bytes as they go to the file, with what their record says of them."""

    stored: Buffer
    checksum: int
    nonce: bytes
    tag: bytes


class PacketSealer:
    """
    Seals and opens what belongs to single packets.

    :param pages: in a full packet
    """

    def __init__(self, key: FileKey, pages: int) -> None:
        self._secret = key.secret
        self._pages = pages
        self._packets = aes_gcm(key.derive("packets"))
        self._page_digests = aes_gcm(key.derive("page digests"))
        self._digests = aes_block(key.derive("digests"))
        self._buffer = bytearray()

    def seal(self, number: int, encoding: int, kinds: Kinds, data: Buffer) -> SealedPacket:
        """
        Seal the stored bytes of a packet, under a fresh nonce.

        :param data: bytes, or pages as ``(n, 4096)``
        :returns: encrypted bytes are valid until the next call
        """
        plain = memoryview(data).cast("B")
        about = self._about(number, len(plain), encoding, kinds)
        nonce = os.urandom(NONCE_SIZE)
        if not self._secret:
            tag = self._packets.encrypt(nonce, b"", about + bytes(plain))
            return SealedPacket(data, crc32(plain), nonce, tag)
        if len(self._buffer) < len(plain) + TAG_SIZE:
            self._buffer = bytearray(len(plain) + TAG_SIZE)
        whole = memoryview(self._buffer)[: len(plain) + TAG_SIZE]
        self._packets.encrypt_into(nonce, plain, about, whole)
        stored = whole[: len(plain)]
        return SealedPacket(stored, crc32(stored), nonce, bytes(whole[len(plain) :]))

    def open(self, packet: StoredPacket, stored: bytes) -> bytes:
        """
        Return the bytes that a packet's encoding made.

        :raises CorruptSnapshotError: they are not what was sealed
        """
        about = self._about(packet.packet, packet.stored_size, packet.encoding, packet.kinds)
        try:
            if self._secret:
                return opened(self._packets, packet.nonce, stored + packet.tag, about)
            opened(self._packets, packet.nonce, packet.tag, about + stored)
        except SealedError:
            message = "stored bytes are not those that were sealed: their tag is wrong"
            error = CorruptSnapshotError(message, packet=packet.packet, offset=packet.offset)
            raise error from None
        return stored

    def hide_digests(self, records: Records) -> None:
        """Encrypt the digests of records that have a nonce, or decrypt encrypted ones."""
        if not self._secret or not len(records):
            return
        blocks = np.zeros((len(records), _BLOCK_SIZE), np.uint8)
        nonces = np.frombuffer(records["nonce"].tobytes(), np.uint8).reshape(-1, NONCE_SIZE)
        blocks[:, :NONCE_SIZE] = nonces
        pads = np.frombuffer(self._digests.update(blocks.tobytes()), np.uint8)
        used = np.asarray(nonces.any(axis=1)).reshape(-1, 1)
        pads = pads.reshape(-1, _BLOCK_SIZE) * used
        digests = np.frombuffer(records["digest"].tobytes(), np.uint8).reshape(-1, _BLOCK_SIZE)
        records["digest"] = np.frombuffer((digests ^ pads).tobytes(), "V16")

    def seal_page_digests(self, number: int, nonce: bytes, digests: bytes) -> tuple[bytes, bytes]:
        """Return a packet's page digests as they are stored, and their tag."""
        about = _NUMBER.pack(number)
        if not self._secret:
            return digests, self._page_digests.encrypt(nonce, b"", about + digests)
        sealed = self._page_digests.encrypt(nonce, digests, about)
        return sealed[:-TAG_SIZE], sealed[-TAG_SIZE:]

    def open_page_digests(self, number: int, nonce: bytes, tag: bytes, stored: bytes) -> bytes:
        """
        Return a packet's page digests.

        :raises CorruptSnapshotError: they are not what was sealed
        """
        about = _NUMBER.pack(number)
        try:
            if self._secret:
                return opened(self._page_digests, nonce, stored + tag, about)
            opened(self._page_digests, nonce, tag, about + stored)
        except SealedError:
            message = "page digests are not those that were sealed: their tag is wrong"
            raise CorruptSnapshotError(message, packet=number) from None
        return stored

    def _about(self, number: int, stored_size: int, encoding: int, kinds: Kinds) -> bytes:
        head = _ABOUT.pack(number, stored_size, encoding, 0, 0)
        return head + pack_kinds([kinds], self._pages).tobytes()
