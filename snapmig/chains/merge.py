"""
Packets with pages from several files of a chain.

Each page is the xor of all stored pages on its way to the first file with the page in full. Pages
are written straight to their place in the result, so that nothing is moved afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from snapmig.chains.member import ChainMember
from snapmig.container.index import StoredPacket
from snapmig.encodings.decoder import digest_problem
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Mask

__all__ = ("PageMerger",)

_PAGE = np.dtype((np.void, PAGE_SIZE))


class PageMerger:
    """
    Some packets, merged side by side.

    :param packets: their records in the youngest file
    :param compare_digests: also compare the digest in each member, to locate the damage
    """

    def __init__(self, packets: Sequence[StoredPacket], *, compare_digests: bool) -> None:
        self._compare_digests = compare_digests
        self._parts = {packet.packet: _Part(packet) for packet in packets}
        self._open = dict(self._parts)  # packets with pages in the next older member
        self._errors: dict[int, SnapmigError] = {}

    def add(self, member: ChainMember, entries: Sequence[StoredPacket] | None = None) -> None:
        """
        Merge the contents of the next older file.

        :param entries: its records of the packets, if known
        """
        if entries is None:
            entries = self._entries(member)
        holding = [entry for entry in entries if self._open[entry.packet].wants(entry)]
        for found in member.load_all(holding, compare_digests=self._compare_digests):
            if found.pages is None:
                self._fail(found.packet.packet, found.error)
            else:
                self._parts[found.packet.packet].take(found.packet, found.pages)
        for entry in entries:
            if entry.packet in self._open and not self._open[entry.packet].pass_on(entry):
                del self._open[entry.packet]

    @property
    def complete(self) -> bool:
        """True if no page of an older file is needed."""
        return not self._open

    def result(self, packet: StoredPacket) -> Bytes | SnapmigError:
        """Return a packet's nonzero pages, or the error found in it."""
        number = packet.packet
        if number in self._errors:
            return self._errors[number]
        if number in self._open:
            return CorruptSnapshotError("has pages of a missing parent", packet=number)
        pages = self._parts[number].finish()
        return digest_problem(packet, pages.data) or pages

    def _entries(self, member: ChainMember) -> list[StoredPacket]:
        try:
            return member.entries_of(list(self._open))
        except StoreError:
            raise
        except SnapmigError:
            return list(self._each_entry(member))

    def _each_entry(self, member: ChainMember) -> Iterator[StoredPacket]:
        # One of them is damaged: check each alone to find it.
        for number in list(self._open):
            try:
                yield from member.entries(number, 1)
            except StoreError:
                raise
            except SnapmigError as error:
                self._fail(number, error)

    def _fail(self, number: int, error: SnapmigError | None) -> None:
        self._errors[number] = error or CorruptSnapshotError("can't be read", packet=number)
        self._open.pop(number, None)


class _Part:
    # One packet: its pages that are not zero, side by side as in the result. They are moved as
    # items of 4096 bytes: numpy puts 18 of them to their places in 3 us, where rows of bytes take
    # 6 and a loop over runs of pages 25; all 128 take 28, and one copy of as many bytes 20.
    def __init__(self, youngest: StoredPacket) -> None:
        self._in_use: Mask = youngest.in_use
        self._wanted: Mask = self._in_use
        self._begun: Mask = np.zeros(len(self._in_use), np.bool_)
        places = np.cumsum(self._in_use)
        self._places = places - 1
        self._pages = np.empty((int(places[-1]), PAGE_SIZE), np.uint8)
        self._items = _items(self._pages)

    def wants(self, entry: StoredPacket) -> bool:
        return entry.stored_pages > 0 and bool((entry.mask & self._wanted).any())

    def take(self, entry: StoredPacket, stored: Bytes) -> None:
        mask = entry.mask
        taken = mask & self._wanted
        places = self._places[taken]
        if len(places) < len(stored):
            stored = stored.take(taken[mask].nonzero()[0], axis=0)
        again = self._begun[taken].nonzero()[0]  # so far there is a difference from it
        if len(again):
            mixed = self._pages.take(places[again], axis=0)
            mixed ^= stored.take(again, axis=0)
        self._items[places] = _items(stored)
        if len(again):
            self._items[places[again]] = _items(mixed)
        self._begun |= taken

    def pass_on(self, entry: StoredPacket) -> bool:
        # True if pages of the next older file are needed.
        self._wanted = self._wanted & (entry.kinds >> 1).view(np.bool_)
        return bool(self._wanted.any())

    def finish(self) -> Bytes:
        blank = self._in_use & ~self._begun
        if blank.any():  # zero in the last file of the way
            self._pages[self._places[blank]] = 0
        return self._pages


def _items(pages: Bytes) -> npt.NDArray[np.void]:
    return pages.reshape(-1).view(_PAGE)
