"""A snapshot as an image to save again: in another form, with or without a parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from snapmig.chains.reader import Loaded, ReadPlan, open_chain
from snapmig.container.index import StoredPacket
from snapmig.container.reader import SnapshotFile
from snapmig.geometry import PAGE_SIZE
from snapmig.images.source import ImageReader
from snapmig.pages import Bytes, runs

__all__ = ("SnapshotSource",)

_PAGES_AT_ONCE = 1024
"""Pages decoded together: those of 8 full packets, 4 MiB of memory at the usual size."""
_MOST_EXTENTS = 16
"""Extents of a packet: to fill many gaps with zeros takes less than to join as many pieces."""


class SnapshotSource:
    """
    The parent process's side: an :class:`~snapmig.images.source.ImageSource`.

    :param snapshot: stays the caller's to close
    :param plans: open it and its parents in a worker
    """

    def __init__(self, snapshot: SnapshotFile, plans: Sequence[ReadPlan], format_name: str) -> None:
        self.format = format_name
        self.shown = snapshot.shown
        self.paths: tuple[str, ...] = (snapshot.shown,)
        self.blocks = snapshot.geometry.blocks
        self.architecture = snapshot.architecture
        self.remarks: tuple[str, ...] = ()
        self.attachments: Mapping[str, bytes] = {}
        self._snapshot = snapshot
        self._plans = plans
        self._known = range(0)
        self._used: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function to open a reader in any process."""
        return partial(_SnapshotReader, self._plans)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on with possibly nonzero bytes, or None."""
        geometry = self._snapshot.geometry
        if start >= geometry.ram_size:
            return None
        packet = geometry.packet_at(start)
        while packet < geometry.packet_count:
            if packet not in self._known:
                self._look_from(packet)
            at = int(np.searchsorted(self._used, packet))
            if at < len(self._used):
                return max(start, geometry.place(int(self._used[at])).ram_offset)
            packet = self._known.stop
        return None

    def _look_from(self, packet: int) -> None:
        # Which of the next packets have pages: looked up once for many batches.
        packets = range(packet, self._snapshot.geometry.packet_count)
        first, records = next(self._snapshot.index.steps(packets))
        self._known = range(first, first + len(records))
        self._used = first + np.flatnonzero(records["kinds"].any(axis=1))

    def check_unchanged(self) -> None:
        """Do nothing: a snapshot never changes, and its file is open."""

    def close(self) -> None:
        """Do nothing: the caller closes the files."""


class _SnapshotReader(ImageReader):
    """
    The worker's side: an :class:`~snapmig.images.source.ImageReader`.

    Whoever asks for extents reads them in order, so the packets behind one are decoded with it.
    """

    def __init__(self, plans: Sequence[ReadPlan]) -> None:
        self._chain = open_chain(plans)
        self._geometry = self._chain.snapshot.geometry
        self._next: list[StoredPacket] = []  # the last first
        self._loaded: dict[int, Loaded] = {}

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        first, last = self._geometry.packet_at(start), self._geometry.packet_at(stop - 1)
        packets = self._chain.packets(first, last - first + 1)
        self._next = packets[::-1]
        for packet in packets:
            place = self._geometry.place(packet.packet)
            for page, count in _few_runs(packet):
                low = place.ram_offset + page * PAGE_SIZE
                high = min(low + count * PAGE_SIZE, place.ram_offset + place.length, stop)
                if max(low, start) < high:
                    yield max(low, start), high

    def view(self, start: int, stop: int) -> Bytes:
        place = self._geometry.place(self._geometry.packet_at(start))
        found = self._packet(place.packet)
        if found.pages is None:
            raise found.error or RuntimeError("no pages and no reason")
        first, inside = divmod(start - place.ram_offset, PAGE_SIZE)
        in_use = found.packet.in_use
        mask = in_use[first : -(-(stop - place.ram_offset) // PAGE_SIZE)]
        before = int(np.count_nonzero(in_use[:first]))
        pages = found.pages[before : before + int(np.count_nonzero(mask))]
        if len(pages) < len(mask):
            filled = np.zeros((len(mask), PAGE_SIZE), np.uint8)
            filled[mask] = pages
            pages = filled
        return pages.reshape(-1)[inside : inside + stop - start]

    def expect(self, start: int, stop: int) -> None:
        first, last = self._geometry.packet_at(start), self._geometry.packet_at(stop - 1)
        self._chain.expect(first, last - first + 1)

    def release(self, start: int, stop: int) -> None:
        """Do nothing: few packets are kept."""

    def _packet(self, number: int) -> Loaded:
        if number not in self._loaded:
            packets = self._from(number)
            self._loaded.clear()
            for found in self._chain.load_all(packets):
                pages = None if found.pages is None else found.pages.copy()
                self._loaded[found.packet.packet] = found._replace(pages=pages)
        return self._loaded[number]

    def _from(self, number: int) -> list[StoredPacket]:
        # The packet, and those expected behind it.
        while self._next and self._next[-1].packet < number:
            self._next.pop()
        if not self._next or self._next[-1].packet != number:
            return self._chain.entries(number, 1)
        packets = [self._next.pop()]
        pages = packets[0].pages
        while self._next and pages + self._next[-1].pages <= _PAGES_AT_ONCE:
            packets.append(self._next.pop())
            pages += packets[-1].pages
        return packets


def _few_runs(packet: StoredPacket) -> Sequence[tuple[int, int]]:
    found = runs(packet.in_use)
    if len(found) <= _MOST_EXTENTS:
        return found
    first, end = found[0][0], sum(found[-1])
    return [(first, end - first)]
