"""One file of a chain in a worker: checked records and decoded packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from snapmig.container.format import Encoding
from snapmig.container.index import Packets, Records, StoredPacket, unpack_records
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.encodings.decoder import Decoded, PacketDecoder
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError, UnreadableError

__all__ = ("ChainMember",)


class ChainMember:
    """
    A snapshot, maybe the parent of another.

    :param records_at_once: number of records checked and kept together
    """

    def __init__(self, file: SnapshotFile, settings: ReadSettings, records_at_once: int) -> None:
        self.file = file
        self.decoder = PacketDecoder(settings)
        self._at_once = records_at_once
        self._no_kinds = np.zeros(file.geometry.packet_pages, np.uint8)
        self._kept = range(0)
        self._in_use: dict[int, StoredPacket] = {}
        self._batch = range(0)

    def announce(self, first: int, count: int) -> None:
        """Announce packets needed next, in parts."""
        self._batch = range(first, first + count)

    def entries(self, first: int, count: int) -> list[StoredPacket]:
        """
        Return the checked records of consecutive packets.

        Their neighbours' records are checked and kept, too, because they are likely to be needed
        next: those of the batch, and after a small batch others behind it, although some of these
        go to other workers.

        :raises CorruptSnapshotError: one of them is damaged
        """
        if not self._keep(first, count):
            return unpack_records(self.file.checked_records(first, count))
        return [self._entry(number) for number in range(first, first + count)]

    def _keep(self, first: int, count: int) -> bool:
        # False if a record is damaged, perhaps of a packet nobody needs.
        if not self._kept.start <= first <= first + count <= self._kept.stop:
            start, stop = self._around(first, count)
            kept = range(start, min(stop, self.file.geometry.packet_count))
            try:
                records = self.file.checked_records(start, len(kept))
            except StoreError:
                raise
            except SnapmigError:
                return False
            # Most of a sparse guest's records are never asked for.
            used = records[records["kinds"].any(axis=1)]
            self._in_use = {each.packet: each for each in unpack_records(used)}
            self._kept = kept
        return True

    def _entry(self, number: int) -> StoredPacket:
        found = self._in_use.get(number)
        return found or StoredPacket(number, 0, 0, Encoding.EMPTY, 0, b"", self._no_kinds, 0)

    def _around(self, first: int, count: int) -> tuple[int, int]:
        batch = self._batch
        large = self._at_once // 4 <= len(batch) <= self._at_once
        if large and batch.start <= first and first + count <= batch.stop:
            return batch.start, batch.stop
        start = first - first % self._at_once
        return start, max(start + self._at_once, first + count)

    def entries_of(self, numbers: Sequence[int]) -> list[StoredPacket]:
        """
        Return the checked records of some packets close to each other.

        :raises CorruptSnapshotError: one of them, or one between them, is damaged
        """
        if not numbers:
            return []
        first, count = min(numbers), max(numbers) - min(numbers) + 1
        if not self._keep(first, count):
            entries = unpack_records(self.file.checked_records(first, count))
            return [entries[number - first] for number in numbers]
        return [self._entry(number) for number in numbers]

    def records_of(self, packets: Packets) -> Records:
        """
        Return the checked records of many packets close to each other, and of no others.

        :raises CorruptSnapshotError: one of them is damaged
        """
        return self.file.checked_records_of(packets)

    def load_all(
        self, packets: Sequence[StoredPacket], *, compare_digests: bool = True
    ) -> Iterator[Decoded]:
        """
        Yield the stored pages of packets, or the error found in them, in any order.

        :param compare_digests: false if the caller compares the digests of its own results
        """
        if len(packets) > 1:
            self.file.prefetch(packets)
        damaged: deque[Decoded] = deque()
        stored = self._stored(packets, damaged)
        for found in self.decoder.decode_all(stored, compare_digests=compare_digests):
            if found.error is not None:
                found.error.path = self.file.shown
            yield found
        yield from damaged

    def _stored(
        self, packets: Iterable[StoredPacket], damaged: deque[Decoded]
    ) -> Iterator[tuple[StoredPacket, bytes]]:
        for packet in packets:
            try:
                stored = self.file.stored(packet)
            except (CorruptSnapshotError, UnreadableError) as error:
                error.path = self.file.shown
                damaged.append(Decoded(packet, None, error))
            else:
                yield packet, stored
