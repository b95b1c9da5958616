"""
Packets that an interrupted save left: taken over where everything about them still holds.

A record must be sound by itself, its digest that of the image's pages as they are now, and its
checksum that of the stored bytes. Everything else is saved anew.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snapmig.container.format import Encoding, Layout
from snapmig.container.index import Record, Records, StoredPacket, unpack_records
from snapmig.container.record_checks import check_record
from snapmig.encodings.packet import EncodedPacket, Summary
from snapmig.errors import CorruptSnapshotError, UnsupportedError
from snapmig.geometry import Geometry, PacketPlace
from snapmig.handlers.packet_store import PacketStore
from snapmig.workers.tasks import Task

__all__ = ("KeptPackets",)


class KeptPackets:
    """
    The packets of a partial file, in one worker.

    :param has_parent: pages may be a parent's
    :ivar count: packets with pages taken over so far
    """

    def __init__(self, store: PacketStore, geometry: Geometry, *, has_parent: bool) -> None:
        self._store = store
        self._geometry = geometry
        self._has_parent = has_parent
        self._in_slots = store.plan.layout == Layout.FIXED
        self._has_digests = store.plan.page_digests_offset > 0
        self.count = 0

    def split(
        self, task: Task, summaries: Iterator[tuple[int, Summary]], kept: dict[int, EncodedPacket]
    ) -> Iterator[tuple[int, Summary]]:
        """Yield the packets that must be encoded, and put the others into ``kept``."""
        known = self._sound(task, self._store.read_stored_records(task))
        for at, summary in summaries:
            packet = None
            if at in known:
                packet = self._matching(known[at], summary)
            if packet is None:
                yield at, summary
            else:
                kept[at] = packet
                self.count += 1

    def _sound(self, task: Task, records: Records) -> dict[int, StoredPacket]:
        places = self._geometry.places(task.first, task.count)
        sound = [at for at, place in enumerate(places) if self._is_sound(records[at], place)]
        if not sound:
            return {}
        return dict(
            zip(sound, unpack_records(self._store.with_digests(records[sound])), strict=True)
        )

    def _is_sound(self, record: Record, place: PacketPlace) -> bool:
        plan = self._store.plan
        window = plan.data_offset, self._store.file_size
        if record["packet"] != place.packet or not record["encoding"]:
            return False  # never written, as most of those that can't be used
        if self._in_slots:
            slot = plan.slot_offset(place.packet)
            window = slot, slot + plan.packet_size
        try:
            check_record(
                record,
                place,
                window,
                has_parent=self._has_parent,
                has_page_digests=self._has_digests,
                sealed=self._store.plan.key is not None,
            )
        except (CorruptSnapshotError, UnsupportedError):
            return False
        return not self._in_slots or int(record["offset"]) in (0, window[0])

    def _matching(self, packet: StoredPacket, summary: Summary) -> EncodedPacket | None:
        if packet.digest != summary.digest:
            return None
        if not np.array_equal(packet.in_use, summary.kinds):
            return None
        try:
            stored = self._store.read_packet(packet) if packet.stored_size else b""
            digests = self._store.read_page_digests(packet) if self._has_digests else b""
        except CorruptSnapshotError:
            return None
        return EncodedPacket(
            packet.kinds,
            Encoding(packet.encoding),
            b"" if self._in_slots else stored,
            packet.stored_size,
            packet.stored_checksum,
            packet.digest,
            digests,
            packet.nonce if self._in_slots else b"",
            packet.tag if self._in_slots else b"",
            in_place=self._in_slots,
        )
