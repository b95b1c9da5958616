"""
Read packets of a snapshot and its parents: from stored bytes to checked page contents.

One path serves restore, verify, random access and comparison, so that none of them checks less. A
page stored by reference or as a difference is looked up in the parent, and so on; only packets with
a needed page are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import numpy as np

from snapmig.chains.descent import find_stored
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
from snapmig.sealing.file_key import FileKey
from snapmig.stores.source import SourcePlan

__all__ = ("RECORDS_AT_ONCE", "REMOTE_AHEAD", "ChainReader", "Loaded", "ReadPlan", "open_chain")

RESOLVED_AT_ONCE = 8
"""Packets merged side by side: 4 MiB of memory at the usual size."""
RECORDS_AT_ONCE = 64
"""Records of a file checked together: 350 us, where a batch of 8 takes 300."""
RECORDS_KEPT = 1024
"""Records kept of all files of a chain together, so that long chains take no more memory."""
REMOTE_AHEAD = 4
"""Batches of 4 MiB a reader: one is decoded while three are on their way, or wait."""


class ReadPlan(NamedTuple):
    """
    Everything a worker needs to read a snapshot, picklable.

    :param source: opens it, also in another process
    :param shown: its name for people
    :param key: of a sealed snapshot
    """

    source: SourcePlan
    shown: str
    settings: ReadSettings
    key: FileKey | None = None


class Loaded(NamedTuple):
    """
    A packet's nonzero pages in order, as ``(n, 4096)``, or the reason for their absence.

    :param pages: valid until the next packet is requested
    """

    packet: StoredPacket
    pages: Bytes | None
    error: SnapmigError | None = None


def open_chain(plans: Sequence[ReadPlan]) -> ChainReader:
    """Open a snapshot and its parents, the youngest first, in a worker."""
    files = [SnapshotFile(plan.source, plan.shown, keys=plan.key) for plan in plans]
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
        self._members = [
            ChainMember(file, each, at_once) for file, each in zip(files, settings, strict=True)
        ]

    @property
    def engine_failures(self) -> int:
        """Number of packets decoded in software after an engine failed."""
        return sum(member.decoder.failures.count for member in self._members)

    @property
    def repeated_requests(self) -> int:
        """Number of requests for objects with more than one attempt."""
        return sum(file.repeated_requests for file in self._files)

    def notes(self) -> list[str]:
        """Return new messages about failures of an engine."""
        return [note for member in self._members for note in member.decoder.failures.take()]

    def records(self, first: int, count: int) -> Records:
        """Return the checked records of consecutive packets."""
        return self.snapshot.checked_records(first, count)

    def entries(self, first: int, count: int) -> list[StoredPacket]:
        """
        Return the checked records of consecutive packets, unpacked.

        :raises CorruptSnapshotError: one of them is damaged
        """
        self._announce(first, count)
        return self._members[0].entries(first, count)

    def _announce(self, first: int, count: int) -> None:
        for member in self._members:
            member.announce(first, count)

    def packets(self, first: int, count: int) -> list[StoredPacket]:
        """Return those of consecutive packets with pages, of however many."""
        if count < RECORDS_AT_ONCE // 4:  # worth checking together with their neighbours
            return [packet for packet in self.entries(first, count) if packet.pages]
        self._announce(first, count)
        records = self.records(first, count)
        return unpack_records(records[records["kinds"].any(axis=1)])

    def expect(self, first: int, count: int, requests: int = 0) -> None:
        """
        Begin to fetch the stored bytes of consecutive packets, if reading them is slow.

        :param requests: limit on those under way at once for each file from now on, unless 0
        """
        for file in self._files if requests else ():
            file.limit_requests(requests)
        needed: Collection[int] = range(first, first + count)
        with suppress(SnapmigError):  # a damaged record is reported when its turn comes
            for file in self._files:
                if not needed or not any(each.is_remote for each in self._files):
                    break
                records = file.checked_records(first, count)
                packets = unpack_records(records) if records["kinds"].any() else []
                packets = [packet for packet in packets if packet.packet in needed]
                file.prefetch(packets)
                needed = {packet.packet for packet in packets if packet.needs_parent}

    def count_arrivals(self, add: Callable[[int], None]) -> None:
        """Tell a function of prefetched bytes as they arrive, in any thread."""
        for file in self._files:
            file.count_arrivals(add)

    def load(self, packet: StoredPacket) -> Bytes:
        """
        Return a packet's nonzero pages in order, as ``(n, 4096)``.

        :param packet: its checked record
        :raises CorruptSnapshotError: stored bytes or contents don't match their checksums
        """
        for found in self.load_all([packet]):
            if found.pages is None:
                raise found.error or RuntimeError("no pages and no reason")
            return found.pages
        return np.empty((0, PAGE_SIZE), np.uint8)

    def load_all(self, packets: Sequence[StoredPacket]) -> Iterator[Loaded]:
        """
        Yield the packets with nonzero pages, in any order.

        :raises SnapmigError: the library of an encoding is missing
        """
        youngest = {packet.packet: packet for packet in packets if packet.pages}
        entries = list(youngest.values())
        passed_on = [entry for entry in entries if entry.needs_parent]
        apart = [entry for entry in passed_on if entry.stored_pages]
        whole = [entry for entry in passed_on if not entry.stored_pages]
        first = self._members[0], [entry for entry in entries if not entry.needs_parent]
        for member, stored in chain([first], find_stored(self._members[1:], whole, apart)):
            for found in member.load_all(stored):
                yield self._checked(youngest[found.packet.packet], found)
        for at in range(0, len(apart), RESOLVED_AT_ONCE):
            yield from self._resolve(apart[at : at + RESOLVED_AT_ONCE])

    def _checked(self, packet: StoredPacket, found: Decoded) -> Loaded:
        # A packet taken whole from a parent: its digest was compared when it was decoded, and must
        # equal the youngest record's.
        if found.error is None and found.packet.digest != packet.digest:
            message = (
                f"digest of the page contents is {packet.digest.hex()}, "
                f"the parent's {found.packet.digest.hex()}"
            )
            error = CorruptSnapshotError(message, packet=packet.packet, path=self.snapshot.shown)
            return Loaded(packet, None, error)
        return Loaded(packet, found.pages, found.error)

    def _resolve(self, packets: Sequence[StoredPacket]) -> Iterator[Loaded]:
        # The youngest record's digest proves the pages of all members: theirs are compared only
        # to locate damage, or an engine's fault.
        for found in self._join(packets, compare_digests=False):
            yield found if found.error is None else self._resolve_again(found)

    def _join(self, packets: Sequence[StoredPacket], *, compare_digests: bool) -> Iterator[Loaded]:
        merger = PageMerger(packets, compare_digests=compare_digests)
        merger.add(self._members[0], packets)
        for member in self._members[1:]:
            if not merger.complete:
                merger.add(member)
        for packet in packets:
            found = merger.result(packet)
            if isinstance(found, SnapmigError):
                found.path = found.path or self.snapshot.shown
                yield Loaded(packet, None, found)
            else:
                yield Loaded(packet, found)

    def _resolve_again(self, found: Loaded) -> Loaded:
        # Member by member, and in software if an engine was involved.
        trusted = [each._replace(engine=SOFTWARE.name) for each in self._settings]
        names = [each.engine for each in self._settings if not find_engine(each.engine).trusted]
        reader = ChainReader(self._files, trusted if names else self._settings)
        (again,) = reader._join([found.packet], compare_digests=True)
        if again.error is None and names:
            failures = self._members[0].decoder.failures
            number = found.packet.packet
            failures.add(f"{names[0]}: gave other bytes than software for packet {number}")
        return again
