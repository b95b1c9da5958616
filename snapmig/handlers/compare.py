"""Compare the packets of two snapshots, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snapmig.chains.reader import ChainReader, ReadPlan, open_chain
from snapmig.container.index import StoredPacket, different, unpack_records
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.pages import Bytes, runs
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("CompareHandler",)

_AT_ONCE = 8
"""Packets of each snapshot decoded together: 4 MiB of memory at the usual size."""

_Rows = Iterable[npt.NDArray[Any]]


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
        found: list[tuple[int, int, int]] = []
        if (differ := different(ones, others)).any():
            packets, their_packets = unpack_records(ones[differ]), unpack_records(others[differ])
            for at in range(0, len(packets), _AT_ONCE):
                part = slice(at, at + _AT_ONCE)
                found += self._differences(packets[part], their_packets[part])
        row[Counter.ENGINE_FAILURES] = self._one.engine_failures + self._other.engine_failures
        row[Counter.RAM_BYTES] += len(self._geometry.ram_range(task.packets))
        return found

    def expect(self, task: Task) -> None:
        """Do nothing: most packets need not be read."""

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return [*self._one.notes(), *self._other.notes()]

    def _differences(
        self, ones: Sequence[StoredPacket], others: Sequence[StoredPacket]
    ) -> Iterator[tuple[int, int, int]]:
        rows, other_rows = self._rows(ones, others)
        for packet, mine, theirs in zip(ones, rows, other_rows, strict=True):
            for first, count in runs((mine != theirs).any(axis=1)):
                yield packet.packet, first, count

    def _rows(
        self, ones: Sequence[StoredPacket], others: Sequence[StoredPacket]
    ) -> tuple[_Rows, _Rows]:
        # For each packet its pages, or the digests of these, in a row each.
        digests, others_digests = self._digests
        if digests is not None and others_digests is not None:
            return map(digests.rows, ones), map(others_digests.rows, others)
        return self._pages(self._one, ones), self._pages(self._other, others)

    def _pages(self, chain: ChainReader, packets: Sequence[StoredPacket]) -> list[Bytes]:
        places = [self._geometry.place(packet.packet) for packet in packets]
        pages = {place.packet: np.zeros((place.pages, PAGE_SIZE), np.uint8) for place in places}
        for found in chain.load_all(packets):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            own = pages[found.packet.packet]
            own[found.packet.in_use[: len(own)]] = found.pages
        return list(pages.values())
