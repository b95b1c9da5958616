"""Comparison with the parent snapshot: leave out pages it has already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from snapmig.chains.reader import RECORDS_AT_ONCE, ReadPlan, open_chain
from snapmig.container.index import StoredPacket, empty_records, unpack_records
from snapmig.encodings.packet import (
    EncodedPacket,
    Summary,
    against_digests,
    against_parent,
    summaries,
    with_page_digests,
)
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.known_packets import KnownPackets
from snapmig.handlers.pipeline import Candidate
from snapmig.handlers.records import Batch
from snapmig.pages import Bytes, PageGroup
from snapmig.workers.tasks import Task

__all__ = ("ParentPackets",)

COMPARED_AT_ONCE = 8
"""Packets that wait for their parents' pages: 4 MiB of memory at the usual size. Packets loaded
together take a quarter less time in a long chain; of a single parent each is loaded at once, while
its own pages are still in the processor's cache."""


class ParentPackets:
    """
    The parent's packets, for comparison with those of a batch.

    A packet with the digest and zero pages of the parent's is equal to it: 128 bits are enough, and
    nothing is read. In others, the digests of pages are compared if the parent has them; without
    them, or for deltas, the parent's pages are decoded and compared byte by byte.

    :param deltas: allow changed pages stored as differences; None: where the parent's pages are
        decoded anyway
    :param keep_digests: give the new snapshot page digests, too
    """

    def __init__(
        self,
        parents: Sequence[ReadPlan],
        *,
        deltas: bool | None = None,
        keep_digests: bool = False,
    ) -> None:
        self._deltas = deltas
        self._keep_digests = keep_digests
        self._at_once = COMPARED_AT_ONCE if len(parents) > 1 else 1
        self._chain = open_chain(parents)
        self._digests = self._chain.snapshot.page_digests
        geometry = self._chain.snapshot.geometry
        self._buffer: Bytes = np.empty((geometry.packet_pages, PAGE_SIZE), np.uint8)
        self._records = empty_records(0, 0, geometry.packet_size)
        self._first = 0
        self._batch = self._records
        self._unpacked: list[StoredPacket] = []
        self._known = KnownPackets(self._records)
        self._same: dict[int, bytes] = {}
        self._rivals: dict[int, EncodedPacket | None] = {}
        # Where page digests are compared, only packets that changed need them.
        self._digest_all = keep_digests and self._digests is None

    @property
    def engine_failures(self) -> int:
        """Number of the parent's packets decoded in software instead of the engine."""
        return self._chain.engine_failures

    def notes(self) -> list[str]:
        """Return the reasons, those not returned before."""
        return self._chain.notes()

    def begin(self, task: Task) -> None:
        """Read the parent's records of a batch."""
        first, end = task.first, task.first + task.count
        if not self._first <= first < end <= self._first + len(self._records):
            self._first, count = first, task.count
            # For a small batch read ahead: some of the next ones come here, too.
            if count < RECORDS_AT_ONCE // 4:
                self._first -= first % RECORDS_AT_ONCE
                known = self._chain.snapshot.geometry.packet_count
                count = min(max(RECORDS_AT_ONCE, end - self._first), known - self._first)
            self._records = self._chain.records(self._first, count)
        self._batch = self._records[first - self._first : end - self._first]
        self._known = KnownPackets(self._batch)
        self._unpacked.clear()
        self._same = {}
        self._rivals.clear()

    def summaries(self, group: PageGroup) -> Iterator[tuple[int, Summary]]:
        """Yield the summaries of packets, but for those kept for :meth:`take_same`."""
        if not self._digest_all:
            for at, summary in self._known.compare(group):
                if summary is not None:
                    yield at, summary
                elif self._known.has_pages(at):
                    self._same[at] = b""
            return
        for at, summary in summaries(group, page_digests=True):
            if not self._known.matches(at, summary):
                yield at, summary
            elif len(summary.data):
                self._same[at] = summary.page_digests

    def complete(self, summary: Summary) -> Summary:
        """Return a summary with page digests, if all packets need them."""
        return with_page_digests(summary) if self._digest_all else summary

    def take_same(self, batch: Batch) -> None:
        """Give a batch the packets found equal to the parent's by :meth:`summaries`."""
        if not self._same:
            return
        places, digests = list(self._same), list(self._same.values())
        if self._keep_digests and self._digests is not None:
            digests = self._digests.of_records(self._batch[places])
        batch.add_same(places, self._batch[places], digests)

    @property
    def _packets(self) -> list[StoredPacket]:
        # A batch without changes needs none.
        if not self._unpacked:
            self._unpacked = unpack_records(self._batch)
        return self._unpacked

    def candidates(
        self, summaries: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[Candidate, Summary]]:
        """
        Yield the candidates for each packet, in any order.

        A packet has two where differences may be smaller than pages, the one with deltas first.

        :raises SnapmigError: the parent's pages, or their digests, can't be read
        """
        changed: dict[int, Summary] = {}
        for at, summary in summaries:
            parent = self._packets[at]
            in_use = parent.in_use
            if not in_use.any() or not len(summary.data):
                yield Candidate(at), self._digested(summary) if self._keep_digests else summary
            elif self._digests is None:
                changed[at] = summary
            else:
                digested = self._digested(summary)
                plain = against_digests(digested, self._digests.of(parent), in_use)
                if self._deltas and (plain.kinds[in_use] & 1).any():
                    changed[at] = digested
                else:
                    yield Candidate(at), plain
            if len(changed) == self._at_once:
                yield from self._compare(changed)
                changed.clear()
        if changed:
            yield from self._compare(changed)

    def _digested(self, summary: Summary) -> Summary:
        return summary if summary.page_digests else with_page_digests(summary)

    def _compare(self, changed: dict[int, Summary]) -> Iterator[tuple[Candidate, Summary]]:
        first = self._packets[0].packet
        for found in self._chain.load_all([self._packets[at] for at in changed]):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            at = found.packet.packet - first
            pages = self._pages_beside(changed[at], found.packet, found.pages)
            forms = against_parent(changed[at], pages, deltas=self._deltas is not False)
            if forms.mixed is not None:
                if not forms.sure:  # known before the first of them is encoded
                    self._rivals[at] = None
                yield Candidate(at, deltas=True), forms.mixed
                if forms.sure:
                    continue
            yield Candidate(at), forms.plain

    def choose(
        self, candidate: Candidate, packet: EncodedPacket
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield a packet's only candidate, or the smaller one when both are encoded."""
        at = candidate.place
        if at not in self._rivals:
            yield at, packet
            return
        other = self._rivals[at]
        if other is None:
            self._rivals[at] = packet.kept()
            return
        del self._rivals[at]
        with_deltas, plain = (packet, other) if candidate.deltas else (other, packet)
        # At equal sizes, a reader has less to do without deltas.
        yield at, with_deltas if with_deltas.stored_size < plain.stored_size else plain

    def _pages_beside(self, summary: Summary, parent: StoredPacket, used: Bytes) -> Bytes:
        # All of the parent's pages, or those only that the packet has, too; valid until the next
        # call. Mostly both have the same zero pages, and nothing is copied.
        in_use = parent.in_use
        if in_use.tobytes() == summary.kinds.tobytes():
            return used
        self._buffer[~in_use] = 0
        self._buffer[in_use] = used
        return self._buffer
