"""A snapshot as an image to save again: in another form, with or without a parent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from snapmig.chains.reader import ReadPlan, open_chain
from snapmig.container.reader import SnapshotFile
from snapmig.geometry import PAGE_SIZE
from snapmig.images.source import ImageReader
from snapmig.pages import Bytes

__all__ = ("SnapshotSource",)

_CACHED_PACKETS = 2
"""A reader goes on in order, and may want smaller packets than these."""


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

    def opener(self) -> Callable[[], ImageReader]:
        """Return a picklable function to open a reader in any process."""
        return partial(_SnapshotReader, self._plans)

    def next_data(self, start: int) -> int | None:
        """Return the first RAM offset from ``start`` on with possibly nonzero bytes, or None."""
        geometry = self._snapshot.geometry
        if start >= geometry.ram_size:
            return None
        packets = range(geometry.packet_at(start), geometry.packet_count)
        for first, records in self._snapshot.index.steps(packets):
            found = np.flatnonzero(records["kinds"].any(axis=1))
            if len(found):
                return max(start, geometry.place(first + int(found[0])).ram_offset)
        return None

    def check_unchanged(self) -> None:
        """Do nothing: a snapshot never changes, and its file is open."""

    def close(self) -> None:
        """Do nothing: the caller closes the files."""


class _SnapshotReader:
    """The worker's side: an :class:`~snapmig.images.source.ImageReader`."""

    def __init__(self, plans: Sequence[ReadPlan]) -> None:
        self._chain = open_chain(plans)
        self._geometry = self._chain.snapshot.geometry
        self._decoded: OrderedDict[int, Bytes] = OrderedDict()

    def extents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        while start < stop:
            place = self._geometry.place(self._geometry.packet_at(start))
            end = min(stop, place.ram_offset + place.length)
            (packet,) = self._chain.entries(place.packet, 1)
            if packet.pages:
                yield start, end
            start = end

    def view(self, start: int, stop: int) -> Bytes:
        place = self._geometry.place(self._geometry.packet_at(start))
        return self._packet(place.packet)[start - place.ram_offset : stop - place.ram_offset]

    def expect(self, start: int, stop: int) -> None:
        first, last = self._geometry.packet_at(start), self._geometry.packet_at(stop - 1)
        self._chain.expect(first, last - first + 1)

    def release(self, start: int, stop: int) -> None:
        """Do nothing: at most two packets are kept."""

    def _packet(self, number: int) -> Bytes:
        if number in self._decoded:
            return self._decoded[number]
        (packet,) = self._chain.entries(number, 1)
        pages = np.zeros((len(packet.kinds), PAGE_SIZE), np.uint8)
        pages[packet.in_use] = self._chain.load(packet)
        while len(self._decoded) >= _CACHED_PACKETS:
            self._decoded.popitem(last=False)
        self._decoded[number] = pages.reshape(-1)
        return self._decoded[number]
