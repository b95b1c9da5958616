"""
Packets on their way from an image to their stored form: read, summarise, compare, encode.

All save handlers share this pipeline; pages that come from elsewhere than an image enter it behind
the reading, at :class:`PageEncoding`. Another comparison replaces the :class:`Comparison`; a step
on stored bytes, such as a cipher, follows the encoder in :meth:`PageEncoding.encode`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from snapmig.container.format import PageKind
from snapmig.container.index import Records, unpack_kinds
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.packet import EncodedPacket, Summary, summarise, with_page_digests
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.records import Batch
from snapmig.images.source import ImageReader, read_batch, read_pages
from snapmig.pages import Bytes
from snapmig.workers.tasks import Task

__all__ = ("Candidate", "Comparison", "PacketPipeline", "PageEncoding", "WithoutParent")


class Candidate(NamedTuple):
    """
    One way to store a packet.

    :param place: the packet's place in its batch
    :param deltas: some pages are differences from the parent's
    """

    place: int
    deltas: bool = False


class Comparison(Protocol):
    """Leaves out pages that need not be stored, batch by batch."""

    @property
    def engine_failures(self) -> int:
        """Number of packets read in software instead of the engine."""

    def begin(self, task: Task) -> None:
        """Prepare for the packets of a batch."""

    def summarise(self, at: int, pages: Bytes) -> Summary | None:
        """Return a packet's summary, or None for one kept for :meth:`take_same`."""

    def complete(self, summary: Summary) -> Summary:
        """Return a plain summary with the digests that :meth:`summarise` would have added."""

    def candidates(
        self, summaries: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[Candidate, Summary]]:
        """Yield the candidates for each packet, in any order."""

    def choose(
        self, candidate: Candidate, packet: EncodedPacket
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield a packet's best candidate once all of them are encoded."""

    def take_same(self, batch: Batch) -> None:
        """Give a batch the packets found equal by :meth:`summarise`."""

    def notes(self) -> Sequence[str]:
        """Return new remarks for the user."""


class WithoutParent:
    """
    The comparison with nothing: each packet has one candidate, all its pages.

    :param page_digests: compute a digest per page
    """

    engine_failures = 0

    def __init__(self, *, page_digests: bool) -> None:
        self._page_digests = page_digests

    def begin(self, task: Task) -> None:
        """Do nothing."""

    def summarise(self, _at: int, pages: Bytes) -> Summary:
        """Return a packet's summary."""
        return summarise(pages, page_digests=self._page_digests)

    def complete(self, summary: Summary) -> Summary:
        """Return a summary with page digests, if wanted."""
        return with_page_digests(summary) if self._page_digests else summary

    def candidates(
        self, summaries: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[Candidate, Summary]]:
        """Yield each packet as it is."""
        return ((Candidate(at), summary) for at, summary in summaries)

    def choose(
        self, candidate: Candidate, packet: EncodedPacket
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield the packet."""
        yield candidate.place, packet

    def take_same(self, batch: Batch) -> None:
        """Do nothing."""

    def notes(self) -> Sequence[str]:
        """Return nothing."""
        return ()


class PageEncoding:
    """The pipeline from pages on: summarise, compare, encode."""

    def __init__(self, encoder: PacketEncoder, comparison: Comparison) -> None:
        self._encoder = encoder
        self.comparison = comparison

    @property
    def engine_failures(self) -> int:
        """Number of packets done in software instead of an engine."""
        return self._encoder.failures.count + self.comparison.engine_failures

    def notes(self) -> list[str]:
        """Return new remarks on failures of an engine."""
        return [*self._encoder.failures.take(), *self.comparison.notes()]

    def encode(
        self, task: Task, summaries: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield packets of a batch by their places in it, in any order."""
        self.comparison.begin(task)
        candidates = self.comparison.candidates(summaries)
        for candidate, packet in self._encoder.encode_all(candidates, task.argument):
            yield from self.comparison.choose(candidate, packet)

    def summaries(self, contents: Iterable[tuple[int, Bytes]]) -> Iterator[tuple[int, Summary]]:
        """Yield the summaries of packets, except those equal to the parent's."""
        for at, pages in contents:
            summary = self.comparison.summarise(at, pages)
            if summary is not None:
                yield at, summary

    def encode_pages(self, task: Task, pages: Bytes, batch: Batch) -> EncodedPacket | None:
        """
        Return a single packet; None if ``batch`` got it, because it equals the parent's.

        :param task: names the packet, and the level
        :param pages: all of its pages, as ``(n, 4096)``
        """
        found = None
        for _, packet in self.encode(task, self.summaries([(0, pages)])):
            found = packet
        self.comparison.take_same(batch)
        return found


class PacketPipeline:
    """Turns the packets of an image into encoded ones, in one worker."""

    def __init__(
        self,
        image: ImageReader,
        geometry: Geometry,
        encoder: PacketEncoder,
        comparison: Comparison,
    ) -> None:
        self._image = image
        self._geometry = geometry
        self.encoding = PageEncoding(encoder, comparison)

    def expect(self, task: Task) -> None:
        """Prefetch the pages of a batch."""
        ram = self._geometry.ram_range(task.packets)
        self._image.expect(ram.start, ram.stop)

    def release(self, task: Task) -> None:
        """Drop the pages of a batch from memory."""
        ram = self._geometry.ram_range(task.packets)
        self._image.release(ram.start, ram.stop)

    def encode(self, task: Task, batch: Batch) -> Iterator[tuple[int, EncodedPacket]]:
        """
        Yield the packets of a batch by their places in it, in any order.

        Packets in holes are left out; those equal to the parent's go straight to ``batch``, at the
        end. A packet's payload is valid until the next one.
        """
        yield from self.encoding.encode(task, self.encoding.summaries(self._contents(task)))
        self.encoding.comparison.take_same(batch)

    def encode_changed(
        self, task: Task, records: Records, suspects: Sequence[int]
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield those of some packets whose pages differ from their records."""
        changed = self.changed(task, records, suspects)
        complete = self.encoding.comparison.complete
        summaries = ((at, complete(summary)) for at, summary in changed)
        yield from self.encoding.encode(task, summaries)

    def changed(
        self, task: Task, records: Records, suspects: Sequence[int]
    ) -> Iterator[tuple[int, Summary]]:
        """Yield summaries, without page digests, of packets other than their records."""
        for at in suspects:
            place = self._geometry.place(task.first + at)
            pages = read_pages(self._image, place)
            if pages is None:
                pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
            summary = summarise(pages)
            in_use = unpack_kinds(records["kinds"][at], place.pages) != PageKind.ZERO
            same = np.array_equal(in_use, summary.kinds)
            if not same or records["digest"][at].tobytes() != summary.digest:
                yield at, summary

    def _contents(self, task: Task) -> Iterator[tuple[int, Bytes]]:
        places = self._geometry.places(task.first, task.count)
        for at, pages in enumerate(read_batch(self._image, places)):
            if pages is not None:
                yield at, pages
