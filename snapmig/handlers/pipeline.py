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

from snapmig.container.index import Records
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.packet import EncodedPacket, Summary, summaries, summarise, with_page_digests
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.counters import Counter, count_codecs
from snapmig.handlers.known_packets import KnownPackets
from snapmig.handlers.records import Batch
from snapmig.images.elf.vmcoreinfo import find_note
from snapmig.images.source import ImageReader, View, read_batch
from snapmig.pages import PageGroup
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("Candidate", "Comparison", "PacketPipeline", "PageEncoding", "WithoutParent")


class KeptPackets(Protocol):
    """Packets that an earlier run saved, taken over where they still hold."""

    def split(
        self, task: Task, summaries: Iterator[tuple[int, Summary]], kept: dict[int, EncodedPacket]
    ) -> Iterator[tuple[int, Summary]]:
        """Yield the packets that must be encoded, and put the others into ``kept``."""


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

    def summaries(self, group: PageGroup) -> Iterator[tuple[int, Summary]]:
        """Yield the summaries of packets, but for those kept for :meth:`take_same`."""

    def complete(self, summary: Summary) -> Summary:
        """Return a plain summary with the digests that :meth:`summaries` would have added."""

    def candidates(
        self, summaries: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[Candidate, Summary]]:
        """Yield the candidates for each packet, in any order."""

    def choose(
        self, candidate: Candidate, packet: EncodedPacket
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield a packet's best candidate once all of them are encoded."""

    def take_same(self, batch: Batch) -> None:
        """Give a batch the packets found equal by :meth:`summaries`."""

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

    def summaries(self, group: PageGroup) -> Iterator[tuple[int, Summary]]:
        """Yield the summaries of packets."""
        return summaries(group, page_digests=self._page_digests)

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
    """
    The pipeline from pages on: summarise, compare, encode.

    :ivar note_packet: the first packet seen with the kernel's note for debuggers
    """

    def __init__(self, encoder: PacketEncoder, comparison: Comparison) -> None:
        self._encoder = encoder
        self.comparison = comparison
        self.note_packet: int | None = None

    @property
    def engine_failures(self) -> int:
        """Number of packets done in software instead of an engine."""
        return self._encoder.failures.count + self.comparison.engine_failures

    def count(self, row: Row) -> None:
        """Set the counters of codecs and engines, and of the kernel's note."""
        count_codecs(row, self._encoder.figures)
        row[Counter.ENGINE_FAILURES] = self.engine_failures
        if self.note_packet is not None:
            row[Counter.NOTE_PACKET] = self.note_packet + 1

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

    def summaries(self, task: Task, contents: Iterable[PageGroup]) -> Iterator[tuple[int, Summary]]:
        """Yield the summaries of a batch's packets, except zeros and the parent's."""
        for group in contents:
            self._look_for_note(task, group)
            for at, summary in self.comparison.summaries(group):
                if len(summary.data):
                    yield at, summary

    def _look_for_note(self, task: Task, group: PageGroup) -> None:
        page = find_note(group.pages)
        if page is None:
            return
        places = np.arange(group.packets * group.packet_pages)[group.there]
        packet = task.first + group.first + int(places[page]) // group.packet_pages
        if self.note_packet is None or packet < self.note_packet:
            self.note_packet = packet

    def encode_pages(self, task: Task, group: PageGroup, batch: Batch) -> EncodedPacket | None:
        """
        Return a single packet; None if it is zero, or ``batch`` got it as one of the parent's.

        :param task: names the packet, and the codec
        :param group: its pages
        """
        found = None
        for _, packet in self.encode(task, self.summaries(task, [group])):
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
        kept: KeptPackets | None = None,
    ) -> None:
        self._image = image
        self._geometry = geometry
        self._kept = kept
        self.encoding = PageEncoding(encoder, comparison)
        self._zero = summarise(np.zeros((geometry.packet_pages, PAGE_SIZE), np.uint8))

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
        summaries = self.encoding.summaries(task, self._read(task, self._image.read))
        if self._kept is None:
            yield from self.encoding.encode(task, summaries)
        else:
            kept: dict[int, EncodedPacket] = {}
            yield from self.encoding.encode(task, self._kept.split(task, summaries, kept))
            yield from kept.items()
        self.encoding.comparison.take_same(batch)

    def encode_changed(
        self, task: Task, changed: Iterator[tuple[int, Summary]]
    ) -> Iterator[tuple[int, EncodedPacket]]:
        """Yield packets found by :meth:`changed`, by their places in the batch."""
        complete = self.encoding.comparison.complete
        yield from self.encoding.encode(task, ((at, complete(summary)) for at, summary in changed))

    def changed(self, task: Task, records: Records) -> Iterator[tuple[int, Summary]]:
        """Yield summaries, without page digests, of packets other than their records."""
        known = KnownPackets(records)
        left = set(known.with_pages())
        for group in self._read(task, self._image.view):
            for at, summary in known.compare(group):
                left.discard(at)
                if summary is not None:
                    yield at, summary
        for at in sorted(left):  # holes now
            yield at, self._zero

    def _read(self, task: Task, view: View) -> Iterator[PageGroup]:
        ram = self._geometry.ram_range(task.packets)
        return read_batch(self._image, ram.start, ram.stop, self._geometry.packet_size, view)
