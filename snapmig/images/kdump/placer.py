"""Puts pages into a dump: compressed to the end of the file, and listed in its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE, PacketPlace
from snapmig.images.kdump.pages import entry_type
from snapmig.images.plan import Placer
from snapmig.images.spans import Span
from snapmig.images.target import Store
from snapmig.page_codecs import compress_zlib
from snapmig.pages import Bytes, Mask

__all__ = ("ZLIB", "DumpPlacer")

ZLIB = 1
"""The compression, in entries and header."""


class DumpPlacer(Placer):
    """
    Compresses pages to the end of the file, and fills their entries of the table.

    :param spans: ranges of RAM with the places of their first entries
    :param zeros: place of the page of zeros
    :param page_size: of the guest, in bytes
    """

    lists_pages: ClassVar[bool] = True

    def __init__(self, spans: Sequence[Span], zeros: int, page_size: int, order: str) -> None:
        super().__init__((), ())
        self._spans = spans
        self._zeros = zeros
        self._page_size = page_size
        self._order = order

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Append a packet's data pages, and list all of its pages."""
        if not any(self._between(place)):
            return
        used, pages = self._guest_pages(mask, data)
        stored = [_stored(page) for page in pages]
        sizes = [len(content) for content, _ in stored]
        end = store.append(np.frombuffer(b"".join(content for content, _ in stored), np.uint8))
        entries = self._entries(used.size)
        entries["offset"][used] = [end + at for at in accumulate(sizes[:-1], initial=0)]
        entries["size"][used] = sizes
        entries["flags"][used] = [flags for _, flags in stored]
        self._list(store, place, entries)

    def zero(self, store: Store, place: PacketPlace, mask: Mask) -> None:
        """List the pages of a packet without data pages; the others are listed already."""
        if not mask.any():
            used, _ = self._guest_pages(mask, np.empty((0, PAGE_SIZE), np.uint8))
            self._list(store, place, self._entries(used.size))

    def _guest_pages(self, mask: Mask, data: Bytes) -> tuple[Mask, Bytes]:
        # The same in pages of the guest, which may be several of ours.
        several = self._page_size // PAGE_SIZE
        if several == 1:
            return mask, data
        filled = np.concatenate([mask, np.zeros(-mask.size % several, np.bool_)])
        pages = np.zeros((filled.size, PAGE_SIZE), np.uint8)
        pages[filled] = data
        used = np.asarray(filled.reshape(-1, several).any(axis=1))
        return used, pages.reshape(-1, self._page_size)[used]

    def _entries(self, count: int) -> npt.NDArray[Any]:
        entries = np.zeros(count, entry_type(self._order))
        entries["offset"], entries["size"] = self._zeros, self._page_size
        return entries

    def _list(self, store: Store, place: PacketPlace, entries: npt.NDArray[Any]) -> None:
        for first, end, offset in self._between(place):
            store.write(offset, np.frombuffer(entries[first:end].tobytes(), np.uint8))

    def _between(self, place: PacketPlace) -> Iterator[tuple[int, int, int]]:
        # Pages of a packet in each range, and the place of the first one's entry.
        start, stop, size = place.ram_offset, place.ram_offset + place.length, self._page_size
        width = entry_type(self._order).itemsize
        for span in self._spans:
            low, high = max(start, span.start), min(stop, span.stop)
            if low < high:
                first, end = (low - start) // size, -(-(high - start) // size)
                yield first, end, span.offset + (low - span.start) // size * width


def _stored(page: Bytes) -> tuple[bytes, int]:
    packed = compress_zlib(page)
    return (packed, ZLIB) if len(packed) < page.size else (page.tobytes(), 0)
