"""
Decoding packets in a worker: stored bytes to checked page contents, by any engine.

The output is compared with the record in length and digest, whatever the engine reported. Errors of
an engine other than the reference software are repeated in software, and only software may declare
a snapshot damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from snapmig.checksums import xxh3_128
from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.encodings.coders import Coder, Done
from snapmig.encodings.compressions import ReadSettings, make_decompressor
from snapmig.encodings.fallback import Failures, Fallback
from snapmig.errors import CorruptSnapshotError, UnreadableError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes
from snapmig.system.files import Buffer

__all__ = ("Decoded", "PacketDecoder", "digest_problem")


class Decoded(NamedTuple):
    """
    A packet's stored pages, in order, as read-only ``(n, 4096)``, or the reason for their absence.

    The digest covers all pages. It is not compared here if some pages are a parent's, or if the
    caller compares it.

    :param pages: valid until the next packet
    """

    packet: StoredPacket
    pages: Bytes | None
    error: CorruptSnapshotError | UnreadableError | None = None


class PacketDecoder:
    """
    Decodes stored bytes to page contents.

    :ivar failures: packets done by software instead of the engine
    """

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._queues: dict[int, _Queue] = {}
        self.failures = Failures()

    def decode_all(
        self, packets: Iterable[tuple[StoredPacket, bytes]], *, compare_digests: bool = True
    ) -> Iterator[Decoded]:
        """
        Yield packets in any order, each with its contents or its fault.

        :param packets: with their stored bytes, checksums already compared
        :param compare_digests: False if the caller compares the digest after further processing;
            the output of engines other than the reference is compared anyway
        :raises SnapmigError: a library is missing
        """
        for packet, stored in packets:
            if packet.encoding == Encoding.RAW:
                yield _checked(packet, stored, compare_digest=compare_digests)
                continue
            queue = self._queue(packet.encoding)
            queue.submit(packet, stored)
            if queue.full:
                yield queue.reap(compare_digest=compare_digests)
        for queue in self._queues.values():
            while queue.waiting:
                yield queue.reap(compare_digest=compare_digests)

    def _queue(self, encoding: int) -> _Queue:
        if encoding not in self._queues:
            self._queues[encoding] = _Queue(
                make_decompressor(self._settings, encoding, self.failures)
            )
        return self._queues[encoding]


class _Queue:
    # The packets of one encoding being decoded.
    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self.waiting: dict[int, tuple[StoredPacket, bytes]] = {}

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self._coder.depth

    def submit(self, packet: StoredPacket, stored: bytes) -> None:
        self.waiting[packet.packet] = packet, stored
        self._coder.submit(packet.packet, stored, packet.stored_pages * PAGE_SIZE)

    def reap(self, *, compare_digest: bool) -> Decoded:
        done = self._coder.reap()
        packet, stored = self.waiting.pop(done.key)
        if not isinstance(self._coder, Fallback):
            return _decoded(packet, done, compare_digest=compare_digest)
        decoded = _decoded(packet, done)
        if decoded.error is None:
            return decoded
        size = packet.stored_pages * PAGE_SIZE
        again = _decoded(packet, self._coder.again(done.key, stored, size))
        if again.error is None:  # so the packet is sound, and the engine is not
            self._coder.blame(decoded.error.message)
        return again


def _decoded(packet: StoredPacket, done: Done, *, compare_digest: bool = True) -> Decoded:
    if isinstance(done.error, CorruptSnapshotError):
        done.error.packet = packet.packet
        return Decoded(packet, None, done.error)
    if done.error is not None:  # a failure of the reference itself
        raise RuntimeError(done.error)
    return _checked(packet, done.result, compare_digest=compare_digest)


def _checked(packet: StoredPacket, plain: Buffer, *, compare_digest: bool) -> Decoded:
    size = packet.stored_pages * PAGE_SIZE
    if len(plain) != size:
        message = f"stream gives {len(plain)} bytes, expected {size} bytes"
        return Decoded(packet, None, CorruptSnapshotError(message, packet=packet.packet))
    if compare_digest and not packet.needs_parent and (error := digest_problem(packet, plain)):
        return Decoded(packet, None, error)
    return Decoded(packet, np.frombuffer(plain, np.uint8).reshape(packet.stored_pages, PAGE_SIZE))


def digest_problem(packet: StoredPacket, plain: Buffer) -> CorruptSnapshotError | None:
    """Return the difference between a packet's pages and its record in words, or None."""
    digest = xxh3_128(plain)
    if digest == packet.digest:
        return None
    message = f"digest of the page contents is {packet.digest.hex()}, computed {digest.hex()}"
    return CorruptSnapshotError(message, packet=packet.packet)
