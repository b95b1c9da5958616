"""Places of zero pages in a snapshot's RAM, from its index, a part at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict

from snapmig.container.format import PageKind
from snapmig.container.index import unpack_kinds
from snapmig.container.reader import SnapshotFile
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Mask

__all__ = ("PageMap",)

_STEP = 256
"""Packets whose records are checked together: 1.5 ms."""
_KEPT = 64
"""Parts kept, of 32 KiB at the usual packet size."""


class PageMap:
    """
    Pages that are zero, and those that are not; for any number of threads.

    :param file: the snapshot; nobody else may ask for its records meanwhile
    """

    def __init__(self, file: SnapshotFile) -> None:
        self._file = file
        self._geometry = file.geometry
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Mask] = OrderedDict()
        self._counts: dict[range, int] = {}

    def in_use(self, packets: range) -> int:
        """Return the bytes of pages other than zero in some packets."""
        with self._lock:
            if packets not in self._counts:
                self._counts[packets] = self._file.index.counts(packets).pages_in_use * PAGE_SIZE
            return self._counts[packets]

    def find(self, start: int, stop: int, *, data: bool) -> int:
        """
        Return the first RAM offset in a range with, or without, data; its end if there is none.

        :raises CorruptSnapshotError: a record on the way is damaged
        """
        while start < stop:
            place = self._geometry.place(self._geometry.packet_at(start))
            block = self._geometry.block_packets(place.block)
            end = place.ram_offset - (place.packet - block.start) * self._geometry.packet_size
            end += self._geometry.blocks[place.block].size
            part, inside = divmod(place.packet, _STEP)
            last = min(block.stop, (part + 1) * _STEP)
            flat = self._mask(part)[inside : inside + last - place.packet].reshape(-1)
            first = (start - place.ram_offset) // PAGE_SIZE
            hits = flat[first:] == data
            at = int(hits.argmax()) if hits.any() else hits.size
            found = place.ram_offset + (first + at) * PAGE_SIZE
            if at < hits.size and found < end:
                return min(max(start, found), stop)
            start = min(found, end)
        return stop

    def _mask(self, part: int) -> Mask:
        with self._lock:
            found = self._kept.get(part)
            if found is None:
                first = part * _STEP
                count = min(_STEP, self._geometry.packet_count - first)
                kinds = self._file.checked_records(first, count)["kinds"].reshape(-1)
                pages = count * self._geometry.packet_pages
                found = (unpack_kinds(kinds, pages) != PageKind.ZERO).reshape(count, -1)
                self._kept[part] = found
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return found
