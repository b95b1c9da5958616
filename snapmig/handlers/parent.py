"""What of a packet need not be stored, because the parent snapshot has it already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from snapmig.chains.reader import RECORDS_AT_ONCE, ReadPlan, open_chain
from snapmig.checksums import xxh3_128
from snapmig.container.index import StoredPacket, empty_records, full_digests, unpack_records
from snapmig.encodings.packet import (
    EncodedPacket,
    Summary,
    against_digests,
    against_parent,
    same_as_parent,
    summarise,
    with_page_digests,
)
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.records import Batch
from snapmig.pages import Bytes
from snapmig.workers.tasks import Task

__all__ = ("ParentPackets",)

COMPARED_AT_ONCE = 8
"""Packets that wait for their parents' pages: 4 MiB of memory at the usual size."""


class ParentPackets:
    """
    The parent's packets, as those of a batch are compared with them.

    A packet whose digest and zero pages are the parent's is the parent's: 128 bits tell, and
    nothing is read. Of others the digests of pages are compared, where the parent has them; else,
    or for differences from them, its pages are decoded and compared byte by byte.

    :param deltas: whether changed pages may be stored as differences; None: where the parent's
        pages are decoded anyway
    :param keep_digests: whether the new snapshot has page digests, too
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
        self._chain = open_chain(parents)
        self._digests = self._chain.snapshot.page_digests
        self._buffer: Bytes = np.empty((0, PAGE_SIZE), np.uint8)
        self._records = empty_records(0, 0, self._chain.snapshot.geometry.packet_size)
        self._first = 0
        self._batch = self._records
        self._unpacked: list[StoredPacket] = []
        self._full: list[bytes | None] = []
        self._same: list[int] = []
        self._drafts: dict[int, EncodedPacket | None] = {}

    @property
    def has_digests(self) -> bool:
        """Whether those of pages are compared, so that only packets that changed need them."""
        return self._digests is not None

    @property
    def engine_failures(self) -> int:
        """How many of the parent's packets an engine did not do, so that software did."""
        return self._chain.engine_failures

    def notes(self) -> list[str]:
        """Return why, what was not returned before."""
        return self._chain.notes()

    def look_at(self, task: Task) -> None:
        """Read what the parent says of a batch's packets."""
        first, end = task.first, task.first + task.count
        if not self._first <= first < end <= self._first + len(self._records):
            self._first, count = first, task.count
            # Of a small batch those of the next ones, too, some of which come here.
            if count < RECORDS_AT_ONCE // 4:
                self._first -= first % RECORDS_AT_ONCE
                known = self._chain.snapshot.geometry.packet_count
                count = min(max(RECORDS_AT_ONCE, end - self._first), known - self._first)
            self._records = self._chain.records(self._first, count)
        self._batch = self._records[first - self._first : end - self._first]
        self._full = full_digests(self._batch)
        self._unpacked.clear()
        self._same.clear()
        self._drafts.clear()

    def summarise(self, at: int, pages: Bytes) -> Summary | None:
        """
        Return what a packet's ``(n, 4096)`` pages are, None where they are the parent's.

        Where the parent has no zero page in it, equal digests tell so before anything else is
        looked at: of a guest at work that is most packets. See :meth:`take_same`. The digest of
        others is computed again, over a copy: the image may have changed since.
        """
        digests_all = self._keep_digests and self._digests is None
        expected = self._full[at]
        if digests_all or expected is None or xxh3_128(pages.data) != expected:
            return summarise(pages, page_digests=digests_all)
        self._same.append(at)
        return None

    def take_same(self, batch: Batch) -> None:
        """Give a batch the packets of which :meth:`summarise` found that they are the parent's."""
        if not self._same:
            return
        digests = []
        if self._keep_digests and self._digests is not None:
            sums = self._batch["page_digests_checksum"][self._same].tolist()
            numbers = self._batch["packet"][self._same].tolist()
            digests = list(map(self._digests.checked, numbers, sums))
        batch.add_same(self._same, self._batch, digests)

    @property
    def _packets(self) -> list[StoredPacket]:
        # Of a batch that did not change, none is asked for.
        if not self._unpacked:
            self._unpacked = unpack_records(self._batch)
        return self._unpacked

    def compare(self, summaries: Iterator[tuple[int, Summary]]) -> Iterator[tuple[int, Summary]]:
        """
        Yield what must be stored of packets, in any order, under twice their keys.

        Where differences may be smaller than pages there are two ways to store a packet: the one
        with differences has the odd key after it.

        :raises SnapmigError: the parent's pages, or their digests, can't be read
        """
        changed: dict[int, Summary] = {}
        for at, summary in summaries:
            parent = self._packets[at]
            in_use = parent.in_use[: len(summary.kinds)]
            same_places = in_use.tobytes() == summary.kinds.tobytes()
            if same_places and (not in_use.any() or parent.digest == summary.digest):
                yield 2 * at, same_as_parent(summary, self._copied_digests(parent))
            elif not in_use.any() or not len(summary.data):
                yield 2 * at, self._digested(summary) if self._keep_digests else summary
            elif self._digests is None:
                changed[at] = summary
            else:
                digested = self._digested(summary)
                plain = against_digests(digested, self._digests.of(parent), in_use)
                if self._deltas and (plain.kinds[in_use] & 1).any():
                    changed[at] = digested
                else:
                    yield 2 * at, plain
            if len(changed) == COMPARED_AT_ONCE:
                yield from self._compare(changed)
                changed.clear()
        yield from self._compare(changed)

    def _copied_digests(self, parent: StoredPacket) -> bytes | None:
        # Of a packet that is the parent's as a whole: they need not be computed.
        if self._digests is None or not self._keep_digests:
            return None
        return self._digests.of(parent)

    def _digested(self, summary: Summary) -> Summary:
        return summary if summary.page_digests else with_page_digests(summary)

    def _compare(self, changed: dict[int, Summary]) -> Iterator[tuple[int, Summary]]:
        # With pages that are read together: of a long chain that takes a quarter less time.
        first = self._packets[0].packet
        for found in self._chain.load_all([self._packets[at] for at in changed]):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            at = found.packet.packet - first
            pages = self._all_pages(found.packet, found.pages, len(changed[at].kinds))
            plain, mixed = against_parent(changed[at], pages, deltas=self._deltas is not False)
            if mixed is not None:
                self._drafts[at] = None
                yield 2 * at + 1, mixed
            yield 2 * at, plain

    def choose(self, key: int, packet: EncodedPacket) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield the smaller of a packet's two forms, when both are there, or its only one."""
        at, mixed = divmod(key, 2)
        if at not in self._drafts:
            yield at, packet
            return
        other = self._drafts[at]
        if other is None:
            self._drafts[at] = packet.kept()
            return
        del self._drafts[at]
        with_differences, plain = (packet, other) if mixed else (other, packet)
        # Where both take the same, a reader has less to do without differences.
        smaller = with_differences.stored_size < plain.stored_size
        yield at, with_differences if smaller else plain

    def _all_pages(self, parent: StoredPacket, used: Bytes, count: int) -> Bytes:
        # Zero pages too; good until the next are asked for.
        in_use = parent.in_use[:count]
        if in_use.all():
            return used
        if len(self._buffer) < count:
            self._buffer = np.empty((count, PAGE_SIZE), np.uint8)
        pages = self._buffer[:count]
        pages[~in_use] = 0
        pages[in_use] = used
        return pages
