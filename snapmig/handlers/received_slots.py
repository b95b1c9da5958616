"""Slots of a snapshot that is being received: their present pages, and new ones for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snapmig.chains.reader import ReadPlan, open_chain
from snapmig.container.format import Encoding, PageKind
from snapmig.container.index import Records, StoredPacket, unpack_records
from snapmig.encodings.compressions import ReadSettings
from snapmig.encodings.decoder import PacketDecoder
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.packet_store import PacketStore
from snapmig.handlers.pipeline import PageEncoding
from snapmig.pages import Bytes, PageGroup
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("ReceivedSlots", "is_stored")


class ReceivedSlots:
    """
    Reads and replaces whole packets in the fixed layout.

    :param parents: snapshots that pages may be taken from, the youngest first
    """

    def __init__(
        self,
        encoding: PageEncoding,
        store: PacketStore,
        geometry: Geometry,
        settings: ReadSettings,
        parents: Sequence[ReadPlan],
    ) -> None:
        self._encoding = encoding
        self._store = store
        self._geometry = geometry
        self._decoder = PacketDecoder(settings)
        self._parent = open_chain(parents) if parents else None

    def record(self, number: int) -> Records:
        """Return a packet's record, as an array of one."""
        return self._store.read_records(Task(0, number, 1))

    def pages(self, record: Records) -> Bytes:
        """
        Return the present pages of a packet, as ``(n, 4096)``.

        :raises CorruptSnapshotError: the bytes written before are not there any more
        """
        (packet,) = unpack_records(record)
        pages = np.zeros((self._geometry.place(packet.packet).pages, PAGE_SIZE), np.uint8)
        kinds = packet.kinds[: len(pages)]
        if packet.needs_parent:
            taken = kinds >= PageKind.SAME_AS_PARENT
            pages[taken] = self._parents_pages(packet.packet, len(pages))[taken]
        if packet.stored_pages:
            mask = packet.mask[: len(pages)]
            pages[mask] ^= self._stored(packet)  # zero so far, or the parent's under a difference
        return pages

    def put(self, task: Task, record: Records, pages: Bytes, row: Row) -> None:
        """
        Store the pages of one packet in place of its present ones.

        :param task: names the packet, and the codec
        :param record: its present record
        """
        batch = self._store.new_batch()
        group = PageGroup.of_packet(pages, self._geometry.packet_pages)
        packet = self._encoding.encode_pages(task, group, batch)
        self._store.put(task.first, packet, batch, record, row)

    def _stored(self, packet: StoredPacket) -> Bytes:
        stored = self._store.read_packet(packet)
        plain = not packet.needs_parent
        for found in self._decoder.decode_all([(packet, stored)], compare_digests=plain):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            return found.pages
        raise RuntimeError("nothing was decoded")

    def _parents_pages(self, number: int, count: int) -> Bytes:
        pages = np.zeros((count, PAGE_SIZE), np.uint8)
        if self._parent is not None:
            (packet,) = self._parent.entries(number, 1)
            if packet.pages:
                pages[packet.in_use[:count]] = self._parent.load(packet)
        return pages


def is_stored(record: Records) -> bool:
    """Return whether a packet of this record has pages other than zero."""
    return bool(record["encoding"][0] != Encoding.EMPTY or record["kinds"][0].any())
