"""Compare the packets of two snapshots, page by page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snapmig.chains.reader import ChainReader, ReadPlan, open_chain
from snapmig.container.index import StoredPacket, different, unpack_records
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.pages import Bytes, runs
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("CompareHandler",)


class CompareHandler:
    """
    Compares batches of packets; equal digests are equal pages.

    Packets with different digests are compared page by page: by page digests if both snapshots have
    them, else byte by byte.

    :param one: a snapshot and its parents
    :param other: another one, with the same RAM blocks and packet size
    """

    def __init__(self, one: Sequence[ReadPlan], other: Sequence[ReadPlan]) -> None:
        self._one = open_chain(one)
        self._other = open_chain(other)
        self._geometry = self._one.snapshot.geometry
        self._digests = (self._one.snapshot.page_digests, self._other.snapshot.page_digests)

    def run(self, task: Task, row: Row) -> list[tuple[int, int, int]]:
        """Return (packet, first page, pages) for each run of different pages."""
        ones = self._one.records(task.first, task.count)
        others = self._other.records(task.first, task.count)
        found = []
        if (differ := different(ones, others)).any():
            pairs = zip(unpack_records(ones[differ]), unpack_records(others[differ]), strict=True)
            for one, other in pairs:
                found += [(one.packet, *run) for run in self._differences(one, other)]
        row[Counter.ENGINE_FAILURES] = self._one.engine_failures + self._other.engine_failures
        row[Counter.RAM_BYTES] += len(self._geometry.ram_range(task.packets))
        return found

    def expect(self, task: Task) -> None:
        """Do nothing: most packets need not be read."""

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return [*self._one.notes(), *self._other.notes()]

    def _differences(self, one: StoredPacket, other: StoredPacket) -> Sequence[tuple[int, int]]:
        digests, others_digests = self._digests
        if digests is not None and others_digests is not None:
            return runs((digests.rows(one) != others_digests.rows(other)).any(axis=1))
        count = self._geometry.place(one.packet).pages
        pages, others = _pages(self._one, one, count), _pages(self._other, other, count)
        return runs((pages != others).any(axis=1))


def _pages(chain: ChainReader, packet: StoredPacket, count: int) -> Bytes:
    pages = np.zeros((count, PAGE_SIZE), np.uint8)
    if packet.kinds.any():
        pages[packet.in_use[:count]] = chain.load(packet)
    return pages
