"""
Reading packets of a snapshot and of its parents: stored bytes to checked page contents.

One path serves restore, verify, random access and comparison, so that none of them checks less. A
page that is the parent's, or a difference from it, is looked for in the parent, and so on; only
packets that hold a page that is wanted are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from snapmig.chains.member import ChainMember
from snapmig.chains.merge import PageMerger
from snapmig.container.index import Records, StoredPacket, unpack_records
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.encodings.decoder import Decoded
from snapmig.encodings.engines import SOFTWARE, find_engine
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes
from snapmig.stores.source import SourcePlan

__all__ = ("RECORDS_AT_ONCE", "ChainReader", "Loaded", "ReadPlan", "open_chain")

RESOLVED_AT_ONCE = 8
"""Packets whose pages are put together side by side: 4 MiB of memory at the usual size."""
RECORDS_AT_ONCE = 64
"""Records of a file that are checked together: 350 us, where those of a batch of 8 take 300."""
RECORDS_KEPT = 1024
"""Records that are kept of all files of a chain together, so that long ones take no more memory."""


class ReadPlan(NamedTuple):
    """
    All that a worker needs to read a snapshot, picklable.

    :param source: opens it, also in another process
    :param shown: its name for people
    """

    source: SourcePlan
    shown: str
    settings: ReadSettings


class Loaded(NamedTuple):
    """
    A packet's pages that are not zero, in order, as ``(n, 4096)``, or why there are none.

    :param pages: good until the next packet is asked for
    """

    packet: StoredPacket
    pages: Bytes | None
    error: SnapmigError | None = None


def open_chain(plans: Sequence[ReadPlan]) -> ChainReader:
    """Open a snapshot and its parents, the youngest first, in a worker."""
    files = [SnapshotFile(plan.source, plan.shown) for plan in plans]
    return ChainReader(files, [plan.settings for plan in plans])


class ChainReader:
    """
    A snapshot and its parents, the youngest first.

    :param files: stay the caller's to close
    """

    def __init__(self, files: Sequence[SnapshotFile], settings: Sequence[ReadSettings]) -> None:
        self.snapshot = files[0]
        self._files = files
        self._settings = settings
        at_once = max(1, min(RECORDS_AT_ONCE, RECORDS_KEPT // len(files)))
        self._layers = [
            ChainMember(file, each, at_once) for file, each in zip(files, settings, strict=True)
        ]

    @property
    def engine_failures(self) -> int:
        """How many packets an engine did not do, so that software did."""
        return sum(layer.decoder.failures.count for layer in self._layers)

    def notes(self) -> list[str]:
        """Return why an engine did not do its work, what was not returned before."""
        return [note for layer in self._layers for note in layer.decoder.failures.take()]

    def records(self, first: int, count: int) -> Records:
        """Return the checked records of packets that follow each other."""
        return self.snapshot.checked_records(first, count)

    def entries(self, first: int, count: int) -> list[StoredPacket]:
        """
        Return what the checked records of packets that follow each other say.

        :raises CorruptSnapshotError: one of them is damaged
        """
        for layer in self._layers:
            layer.look_at(first, count)
        return self._layers[0].entries(first, count)

    def packets(self, first: int, count: int) -> list[StoredPacket]:
        """Return the same, but nothing where all pages are zero, of however many packets."""
        if count > RECORDS_AT_ONCE:  # those that look as if nothing was stored
            records = self.records(first, count)
            return unpack_records(records) if records["kinds"].any() else []
        packets = self.entries(first, count)
        return packets if any(packet.has_pages for packet in packets) else []

    def expect(self, first: int, count: int) -> None:
        """Have the stored bytes of packets that follow each other fetched, if that takes long."""
        if self.snapshot.is_remote:
            with suppress(SnapmigError):  # a damaged record is told of when its turn has come
                records = self.records(first, count)
                stored = records[records["stored_size"] > 0]
                self.snapshot.prefetch(unpack_records(stored) if len(stored) else [])

    def load(self, packet: StoredPacket) -> Bytes:
        """
        Return a packet's pages that are not zero, in order, as ``(n, 4096)``.

        :param packet: what its checked record says
        :raises CorruptSnapshotError: stored bytes or contents are not what they should be
        """
        for found in self.load_all([packet]):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            return found.pages
        return np.empty((0, PAGE_SIZE), np.uint8)

    def load_all(self, packets: Sequence[StoredPacket]) -> Iterator[Loaded]:
        """
        Yield those packets that have pages that are not zero, in any order.

        :raises SnapmigError: the library of an encoding is missing
        """
        youngest = {packet.packet: packet for packet in packets if packet.has_pages}
        apart: list[StoredPacket] = []
        entries = list(youngest.values())
        for depth, layer in enumerate(self._layers):
            own = [entry for entry in entries if not entry.needs_parent]
            for found in layer.load_all(own):
                yield self._checked(youngest[found.packet.packet], found)
            passed_on = [entry for entry in entries if entry.needs_parent]
            apart += [youngest[entry.packet] for entry in passed_on if entry.stored_pages]
            whole = [entry.packet for entry in passed_on if not entry.stored_pages]
            if not whole:
                break
            entries = self._parents_of(depth, [youngest[number] for number in whole], apart)
        for at in range(0, len(apart), RESOLVED_AT_ONCE):
            yield from self._resolve(apart[at : at + RESOLVED_AT_ONCE])

    def _parents_of(
        self, depth: int, packets: Sequence[StoredPacket], apart: list[StoredPacket]
    ) -> list[StoredPacket]:
        # What the next file says of packets that are its own as a whole; those that are so only
        # in part, and all of them where its index is damaged, must be put together page by page.
        try:
            entries = self._layers[depth + 1].entries_of([each.packet for each in packets])
        except (SnapmigError, IndexError):
            apart += packets
            return []
        found = list(zip(entries, packets, strict=True))
        same = [entry.in_use.tobytes() == packet.in_use.tobytes() for entry, packet in found]
        apart += [packet for (_, packet), whole in zip(found, same, strict=True) if not whole]
        return [entry for (entry, _), whole in zip(found, same, strict=True) if whole]

    def _checked(self, packet: StoredPacket, found: Decoded) -> Loaded:
        # A packet that is a parent's as a whole: that one's digest was compared when it was
        # decoded, and must be what the youngest record says too.
        if found.error is None and found.packet.digest != packet.digest:
            message = (
                f"digest of the page contents is {packet.digest.hex()}, "
                f"the parent's {found.packet.digest.hex()}"
            )
            error = CorruptSnapshotError(message, packet=packet.packet, path=self.snapshot.shown)
            return Loaded(packet, None, error)
        return Loaded(packet, found.pages, found.error)

    def _resolve(self, packets: Sequence[StoredPacket]) -> Iterator[Loaded]:
        # That of the youngest record proves the pages of all layers: those are compared only to
        # tell whose damage it is, or which engine's fault.
        for found in self._join(packets, compare_digests=False):
            yield found if found.error is None else self._resolve_again(found)

    def _join(self, packets: Sequence[StoredPacket], *, compare_digests: bool) -> Iterator[Loaded]:
        joined = PageMerger(packets, compare_digests=compare_digests)
        joined.add(self._layers[0], packets)
        for layer in self._layers[1:]:
            if not joined.complete:
                joined.add(layer)
        for packet in packets:
            found = joined.result(packet)
            if isinstance(found, SnapmigError):
                found.path = found.path or self.snapshot.shown
                yield Loaded(packet, None, found)
            else:
                yield Loaded(packet, found)

    def _resolve_again(self, found: Loaded) -> Loaded:
        # ChainMember by layer, and where an engine had a part in the pages, in software.
        trusted = [each._replace(engine=SOFTWARE.name) for each in self._settings]
        names = [each.engine for each in self._settings if not find_engine(each.engine).trusted]
        reader = ChainReader(self._files, trusted if names else self._settings)
        (again,) = reader._join([found.packet], compare_digests=True)
        if again.error is None and names:
            failures = self._layers[0].decoder.failures
            number = found.packet.packet
            failures.add(f"{names[0]}: gave other bytes than software for packet {number}")
        return again
