"""
The index of a snapshot being read: records as arrays, not yet checked.

Parts of 1 MiB are no slower than a mapping: ``info`` of a guest of 1 TiB, with an index of 256 MiB,
took 0.56 s, and 0.75 s with one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snapmig.container.index import Packets, Records, record_dtype
from snapmig.container.stored_index import StoredIndex

__all__ = ("IndexReader",)


class IndexReader(StoredIndex):
    """The records of one snapshot."""

    def records(self, first: int, count: int) -> Records:
        """
        Return records of consecutive packets, as an array owned by the caller.

        :param count: number of records; fewer are returned at the end of the packets
        :raises CorruptSnapshotError: the file was cut since it was opened
        """
        return self._array(self._read(first, count)).copy()

    def records_of(self, packets: Packets) -> Records:
        """
        Return records of some packets likewise.

        :param packets: their numbers, in order; all between the first and the last are read
        :raises CorruptSnapshotError: the file was cut since it was opened
        """
        first = int(packets[0])
        return self._array(self._read(first, int(packets[-1]) - first + 1))[packets - first]

    def steps(self, packets: range | None = None) -> Iterator[tuple[int, Records]]:
        """
        Yield all records, or those of some packets, part by part, each with its first packet.

        :raises CorruptSnapshotError: a record is in a hole of the file, or the file was cut
        """
        for first, raw in self.raw_steps(packets):
            yield first, self._array(raw)

    def _array(self, raw: bytes) -> Records:
        return np.frombuffer(raw, record_dtype(self._block.packet_size))
