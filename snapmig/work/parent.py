"""What of a packet need not be stored, because the parent snapshot has it already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from snapmig.container.index import StoredPacket, unpack_records
from snapmig.encodings.packet import EncodedPacket, Summary, against_parent, same_as_parent
from snapmig.fleet.tasks import Task
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes
from snapmig.work.chain import ReadPlan, open_chain

__all__ = ("ParentPackets",)


class ParentPackets:
    """
    The parent's packets, as those of a batch are compared with them.

    A packet whose digest and zero pages are the parent's is the parent's: 128 bits tell, and
    nothing is read. Of others the parent's pages are decoded and compared byte by byte.
    """

    def __init__(self, parents: Sequence[ReadPlan]) -> None:
        self._chain = open_chain(parents)
        self._packets: list[StoredPacket] = []
        self._drafts: dict[int, EncodedPacket | None] = {}

    def look_at(self, task: Task) -> None:
        """Read what the parent says of a batch's packets."""
        self._packets = unpack_records(self._chain.records(task.first, task.count))
        self._drafts.clear()

    def compare(self, summaries: Iterator[tuple[int, Summary]]) -> Iterator[tuple[int, Summary]]:
        """
        Yield what must be stored of packets, with an even key for the one way or both.

        Where differences may be smaller than pages there are two ways to store a packet: the one
        with differences has the odd key after it.
        """
        for at, summary in summaries:
            parent = self._packets[at]
            in_use = parent.in_use[: len(summary.kinds)]
            same_places = np.array_equal(in_use, summary.kinds)
            if same_places and (not in_use.any() or parent.digest == summary.digest):
                yield 2 * at, same_as_parent(summary)
                continue
            plain, mixed = against_parent(summary, self._pages(parent, len(summary.kinds)))
            if mixed is not None:
                self._drafts[at] = None
                yield 2 * at + 1, mixed
            yield 2 * at, plain

    def choose(self, key: int, packet: EncodedPacket) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield the smaller of a packet's two forms, when both are there, or its only one."""
        at = key // 2
        if at not in self._drafts:
            yield at, packet
            return
        other = self._drafts[at]
        if other is None:
            self._drafts[at] = packet.kept()
            return
        del self._drafts[at]
        yield at, packet if packet.stored_size < other.stored_size else other

    def _pages(self, parent: StoredPacket, count: int) -> Bytes:
        pages = np.zeros((count, PAGE_SIZE), np.uint8)
        in_use = parent.in_use[:count]
        if in_use.any():
            pages[in_use] = self._chain.load(parent)
        return pages
