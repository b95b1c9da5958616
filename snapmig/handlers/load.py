"""Worker side of restore and verify: decode packets, then write the pages or discard them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np

from snapmig.chains.reader import Loaded, ReadPlan, open_chain
from snapmig.checksums import xxh3_128
from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.container.page_digests import wrong_page
from snapmig.container.rests import wrong_rests
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnreadableError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.arrivals import Arrivals
from snapmig.handlers.counters import Counter
from snapmig.handlers.damage import Damage, sound_packets
from snapmig.images.plan import Placer
from snapmig.images.target import TargetPlan, open_store
from snapmig.pages import Mask
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("RestoreHandler", "RestorePlan", "VerifyHandler")


class RestorePlan(NamedTuple):
    """
    Parameters of a restore worker, picklable.

    :param read: the snapshot and its parents, the youngest first
    :param placer: writes packets to their places in the target
    :param keep_going: leave zeros in place of damaged packets, and reply with these
    :param resumed: the target may have some of them already
    """

    read: Sequence[ReadPlan]
    target: TargetPlan
    placer: Placer
    keep_going: bool = False
    resumed: bool = False


class RestoreHandler:
    """Decodes packets and writes their pages into an image."""

    def __init__(self, plan: RestorePlan) -> None:
        self._plan = plan
        self._chain = open_chain(plan.read)
        self._arrivals = Arrivals(self._chain)
        self._geometry = self._chain.snapshot.geometry
        self._store = open_store(plan.target)
        self._zeros = plan.target.in_place or plan.placer.lists_pages

    def run(self, task: Task, row: Row) -> list[Damage]:
        """Restore a batch of packets; return the damaged ones."""
        self._arrivals.show(row)
        lost: dict[int, SnapmigError] = {}
        wrong = packets = self._packets(task, lost)
        if self._plan.resumed:
            wrong = [packet for packet in packets if not self._is_right(packet)]
            row[Counter.KEPT_PACKETS] += len(packets) - len(wrong)
            if self._chain.snapshot.is_remote:
                self._chain.snapshot.prefetch([each for each in wrong if each.stored_size])
        for found in self._chain.load_all(wrong):
            self._take(found, lost)
        sound = [packet for packet in packets if packet.packet not in lost]
        if self._zeros:
            self._zero(task, sound)
        self._store.start_writing_back()
        _count(row, self._geometry, task, sound)
        row[Counter.ENGINE_FAILURES] = self._chain.engine_failures
        row[Counter.REPEATED_REQUESTS] = self._chain.repeated_requests
        return Damage.reply(lost)

    def _packets(self, task: Task, lost: dict[int, SnapmigError]) -> list[StoredPacket]:
        if self._plan.keep_going:
            return sound_packets(self._chain, task, lost)
        return self._chain.packets(task.first, task.count)

    def _take(self, found: Loaded, lost: dict[int, SnapmigError]) -> None:
        if found.pages is not None:
            place = self._geometry.place(found.packet.packet)
            mask = found.packet.in_use[: place.pages]
            self._plan.placer.write(self._store, place, mask, found.pages)
            return
        error = found.error or RuntimeError("no pages and no reason")
        if not self._plan.keep_going or not isinstance(
            error, CorruptSnapshotError | UnreadableError
        ):
            raise error
        lost[found.packet.packet] = error
        if self._plan.placer.needs_all:
            place = self._geometry.place(found.packet.packet)
            mask = found.packet.in_use[: place.pages]
            zeros = np.zeros((int(mask.sum()), PAGE_SIZE), np.uint8)
            self._plan.placer.write(self._store, place, mask, zeros)

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        if not self._plan.resumed:
            self._chain.expect(task.first, task.count, task.argument)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _is_right(self, packet: StoredPacket) -> bool:
        place = self._geometry.place(packet.packet)
        pages = self._plan.placer.read(self._store, place, packet.in_use[: place.pages])
        return xxh3_128(pages.data) == packet.digest

    def _zero(self, task: Task, sound: Sequence[StoredPacket]) -> None:
        # What is not in use, and all of what is lost.
        in_use = {packet.packet: packet.in_use for packet in sound}
        nothing = np.zeros(self._geometry.packet_pages, np.bool_)
        for number in task.packets:
            place = self._geometry.place(number)
            mask = in_use.get(number, nothing)[: place.pages]
            self._plan.placer.zero(self._store, place, mask)


class VerifyHandler:
    """Decodes packets and compares digests, of pages too if stored; continues after damage."""

    def __init__(self, plan: Sequence[ReadPlan]) -> None:
        self._chain = open_chain(plan)
        self._arrivals = Arrivals(self._chain)
        self._snapshot = self._chain.snapshot
        self._geometry = self._snapshot.geometry

    def run(self, task: Task, row: Row) -> list[Damage]:
        """Check a batch of packets; return the damaged ones."""
        self._arrivals.show(row)
        damage: dict[int, SnapmigError] = {}
        packets = sound_packets(self._chain, task, damage)
        for found in self._chain.load_all(packets):
            error = found.error or self._page_problem(found)
            if isinstance(error, UnreadableError):  # a disk's failure is no damage, nor approval
                raise error
            if error is not None:
                damage[found.packet.packet] = error
        for error in self._wrong_rests(task, packets, damage):
            damage[error.packet or 0] = error
        row[Counter.DAMAGED_PACKETS] += len(damage)
        row[Counter.ENGINE_FAILURES] = self._chain.engine_failures
        row[Counter.REPEATED_REQUESTS] = self._chain.repeated_requests
        sound = [packet for packet in packets if packet.packet not in damage]
        _count(row, self._geometry, task, sound)
        return Damage.reply(damage)

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        self._chain.expect(task.first, task.count, task.argument)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _wrong_rests(
        self, task: Task, packets: Sequence[StoredPacket], damage: Container[int]
    ) -> list[CorruptSnapshotError]:
        known = {packet.packet: packet for packet in packets}
        nothing = np.zeros(self._geometry.packet_pages, np.bool_)

        def stored_pages(number: int) -> Mask | None:
            if number in damage:
                return None
            if number not in known:
                return nothing
            packet = known[number]
            return packet.mask if packet.encoding in (Encoding.RAW, Encoding.EMPTY) else None

        return list(wrong_rests(self._snapshot, task.packets, stored_pages))

    def _page_problem(self, found: Loaded) -> SnapmigError | None:
        digests = self._snapshot.page_digests
        if digests is None or found.pages is None:
            return None
        try:
            error = wrong_page(found.packet, found.pages, digests.of(found.packet))
        except CorruptSnapshotError as damage:
            return damage
        if error is not None:
            error.path = self._snapshot.shown
        return error


def _count(row: Row, geometry: Geometry, task: Task, packets: Sequence[StoredPacket]) -> None:
    row[Counter.RAM_BYTES] += len(geometry.ram_range(task.packets))
    data_pages = sum(packet.pages for packet in packets)
    row[Counter.DATA_PAGES] += data_pages
    row[Counter.WRITTEN_BYTES] += data_pages * PAGE_SIZE
