"""
Reading packets of a snapshot and of its parents: stored bytes to checked page contents.

One path serves restore, verify, random access and comparison, so that none of them checks less. A
page that is the parent's, or a difference from it, is looked for in the parent, and so on; only
packets that hold a page that is wanted are decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from snapmig.container.index import Records, StoredPacket, unpack_records
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.encodings.decoder import Decoded, PacketDecoder, digest_problem
from snapmig.encodings.engines import SOFTWARE, find_engine
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Mask, runs
from snapmig.stores.source import SourcePlan

__all__ = ("ChainReader", "Loaded", "ReadPlan", "open_chain")

RESOLVED_AT_ONCE = 8
"""Packets whose pages are put together side by side: 4 MiB of memory at the usual size."""


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
        self._layers = [
            _Layer(file, PacketDecoder(each)) for file, each in zip(files, settings, strict=True)
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
        youngest = {packet.packet: packet for packet in packets if packet.kinds.any()}
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
            entries = _entries(self._layers[depth + 1].file, [each.packet for each in packets])
        except (SnapmigError, IndexError):
            apart += packets
            return []
        found = list(zip(entries, packets, strict=True))
        same = [np.array_equal(entry.in_use, packet.in_use) for entry, packet in found]
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
        joined = _Joined(packets)
        for layer in self._layers:
            joined.add(layer)
        for packet in packets:
            found = joined.result(packet, self.snapshot.shown)
            yield self._resolve_in_software(found) if found.error is not None else found

    def _resolve_in_software(self, found: Loaded) -> Loaded:
        # Only the youngest record's digest tells of pages from several files, and not whose fault
        # it is: where an engine had a part in them, software must try.
        if all(find_engine(each.engine).trusted for each in self._settings):
            return found
        trusted = [each._replace(engine=SOFTWARE.name) for each in self._settings]
        (again,) = ChainReader(self._files, trusted)._resolve([found.packet])
        if again.error is None:
            name = next(e.engine for e in self._settings if not find_engine(e.engine).trusted)
            failures = self._layers[0].decoder.failures
            failures.add(f"{name}: gave other bytes than software for packet {found.packet.packet}")
        return again


class _Layer:
    # One file of a chain.
    def __init__(self, file: SnapshotFile, decoder: PacketDecoder) -> None:
        self.file = file
        self.decoder = decoder

    def load_all(self, packets: Sequence[StoredPacket]) -> Iterator[Decoded]:
        if len(packets) > 1:
            self.file.prefetch(packets)
        damaged: deque[Decoded] = deque()
        for found in self.decoder.decode_all(self._stored(packets, damaged)):
            if found.error is not None:
                found.error.path = self.file.shown
            yield found
        yield from damaged

    def _stored(
        self, packets: Iterable[StoredPacket], damaged: deque[Decoded]
    ) -> Iterator[tuple[StoredPacket, bytes]]:
        for packet in packets:
            try:
                stored = self.file.stored(packet)
            except CorruptSnapshotError as error:
                error.path = self.file.shown
                damaged.append(Decoded(packet, None, error))
            else:
                yield packet, stored


class _Joined:
    # Packets whose pages come from several files. Each page is the xor of all stored pages on its
    # way to the first file that does not need its parent.
    def __init__(self, packets: Sequence[StoredPacket]) -> None:
        self._youngest = {packet.packet: packet for packet in packets}
        self._pages = {
            packet.packet: np.empty((len(packet.kinds), PAGE_SIZE), np.uint8) for packet in packets
        }
        self._begun: dict[int, Mask] = {
            packet.packet: np.zeros(len(packet.kinds), np.bool_) for packet in packets
        }
        self._wanted: dict[int, Mask] = {packet.packet: packet.in_use for packet in packets}
        self._errors: dict[int, SnapmigError] = {}
        self._first = True

    def add(self, layer: _Layer) -> None:
        entries = self._entries(layer.file)
        holding = [entry for entry in entries if (entry.mask & self._wanted[entry.packet]).any()]
        for found in layer.load_all(holding):
            if found.pages is None:
                self._fail(found.packet.packet, found.error)
            else:
                self._take(found.packet, found.pages)
        for entry in entries:
            if entry.packet in self._wanted:
                self._wanted[entry.packet] = self._wanted[entry.packet] & (entry.kinds & 2 != 0)
                if not self._wanted[entry.packet].any():
                    del self._wanted[entry.packet]

    def result(self, packet: StoredPacket, shown: str) -> Loaded:
        error = self._errors.get(packet.packet)
        if error is not None:
            return Loaded(packet, None, error)
        if packet.packet in self._wanted:
            message = "has pages of a parent that is not there"
            error = CorruptSnapshotError(message, packet=packet.packet, path=shown)
            return Loaded(packet, None, error)
        pages, in_use = self._pages[packet.packet], packet.in_use
        pages[in_use & ~self._begun[packet.packet]] = 0  # zero in the file that the way ends in
        pages = pages if in_use.all() else pages[in_use]
        problem = digest_problem(packet, pages.data)
        if problem is not None:
            problem.path = shown
            return Loaded(packet, None, problem)
        return Loaded(packet, pages)

    def _entries(self, file: SnapshotFile) -> list[StoredPacket]:
        if self._first:
            self._first = False
            return list(self._youngest.values())
        try:
            return _entries(file, list(self._wanted))
        except StoreError:
            raise
        except SnapmigError:
            return list(self._each_entry(file))

    def _each_entry(self, file: SnapshotFile) -> Iterator[StoredPacket]:
        # One of them is wrong: each alone says which.
        for number in list(self._wanted):
            try:
                yield from _entries(file, [number])
            except StoreError:
                raise
            except SnapmigError as error:
                self._fail(number, error)

    def _fail(self, number: int, error: SnapmigError | None) -> None:
        self._errors[number] = error or CorruptSnapshotError("can't be read", packet=number)
        self._wanted.pop(number, None)

    def _take(self, entry: StoredPacket, stored: Bytes) -> None:
        # Run by run: 35 us for 128 pages, where indices and their copies take 573.
        pages, begun, mask = self._pages[entry.packet], self._begun[entry.packet], entry.mask
        rank = (np.cumsum(mask) - 1).tolist()
        taken = mask & self._wanted[entry.packet]
        for first, count in runs(taken & ~begun):
            pages[first : first + count] = stored[rank[first] : rank[first] + count]
        for first, count in runs(taken & begun):
            pages[first : first + count] ^= stored[rank[first] : rank[first] + count]
        begun |= taken


def _entries(file: SnapshotFile, numbers: Sequence[int]) -> list[StoredPacket]:
    # Of packets that are near each other, since they are of one batch.
    if not numbers:
        return []
    first = min(numbers)
    records = file.checked_records(first, max(numbers) - first + 1)
    return unpack_records(records[[number - first for number in numbers]])
