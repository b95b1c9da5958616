"""
A guest's memory in another process, filled where it is touched.

Pages that the guest gives up (a balloon's) are zero from then on. The kernel tells of that before
it takes them away, and no page may be filled with older contents after that was read: one lock
covers both. While such a message waits to be read, the kernel refuses to fill any page.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from snapmig.daemons.packet_source import PacketSource
from snapmig.daemons.regions import Region, Regions
from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Mask, data_mask, runs
from snapmig.system.userfaultfd import Userfault

__all__ = ("FaultingMemory", "MemoryGoneError", "Unit")

_AGAIN_S = 0.0002
_RELEASE_S = 5.0


class MemoryGoneError(SnapmigError):
    """The other process has ended, or left this memory."""


class Unit(NamedTuple):
    """
    Pages filled together: those of a packet in one region, or one huge page.

    :ivar first: number of the first page, from the start of all RAM
    :ivar end: number of the page after the last
    """

    region: Region
    first: int
    end: int


class FaultingMemory:
    """
    The memory described by a handshake; for any number of threads, of which one reads events.

    :ivar removed: bytes of events about memory given up
    """

    def __init__(self, userfault: Userfault, regions: Regions, source: PacketSource) -> None:
        self._userfault = userfault
        self._regions = regions
        self._source = source
        self._page = regions.page_size
        pages = source.geometry.ram_size // self._page
        self._filled: Mask = np.zeros(pages, np.bool_)
        self._given_up: Mask = np.zeros(pages, np.bool_)
        self._lock = threading.Lock()
        self._abandoned = False
        self.removed = 0
        # For huge pages, of which the kernel has none that is zero.
        self._zeros: Bytes = np.frombuffer(mmap.mmap(-1, self._page), np.uint8)

    def faults(self) -> list[Unit]:
        """
        Read all events, and return what to fill for those that wait, with the page they wait for.

        :raises SnapmigError: a fault outside of all regions, or an event of another kind
        """
        with self._lock:
            events = self._userfault.events()
            for event in events:
                if event.stop is not None:
                    self._give_up(event.start, event.stop)
        return [self._unit_at(event.start) for event in events if event.stop is None]

    def whole(self, page: Unit) -> Unit:
        """Return the pages to be filled with one page."""
        region, geometry = page.region, self._source.geometry
        if self._page != PAGE_SIZE:
            return page
        place = geometry.place(geometry.packet_at(page.first * PAGE_SIZE))
        return _cut(region, place.ram_offset, place.ram_offset + place.length)

    def packet_of(self, page: Unit) -> int:
        """Return the number of the packet with a page's first byte."""
        return self._source.geometry.packet_at(page.first * self._page)

    def units(self, packet: int) -> Iterator[Unit]:
        """Yield all units with pages of a packet."""
        place = self._source.geometry.place(packet)
        start, stop = place.ram_offset, place.ram_offset + place.length
        while start < stop:
            region = self._regions.at_offset(start)
            if self._page == PAGE_SIZE:
                unit = _cut(region, start, stop)
            else:
                page = start // self._page
                unit = Unit(region, page, page + 1)
            yield unit
            start = unit.end * self._page

    def is_filled(self, unit: Unit) -> bool:
        """Return True if nothing is left to be done for a unit that nobody waits for."""
        part = slice(unit.first, unit.end)
        return bool((self._filled[part] | self._given_up[part]).all())

    def fill(self, unit: Unit, wanted: int | None = None) -> bool:
        """
        Fill a unit's missing pages, except those given up; return True if its packets have pages.

        :param wanted: the page that somebody waits for, filled in any case
        :raises CorruptSnapshotError: a packet is damaged; nothing was filled
        :raises MemoryGoneError: there is no such memory any more
        """
        start, stop = unit.first * self._page, unit.end * self._page
        content = self._source.read(start, stop, ahead=wanted is None)
        # Zero pages among others take no memory of the guest.
        mask = None
        if content is not None and self._page == PAGE_SIZE == mmap.PAGESIZE:
            mask = data_mask(content.reshape(-1, PAGE_SIZE))
        while not self._fill_once(unit, content, mask, wanted):
            if self._abandoned:
                raise MemoryGoneError("it is no longer served")
            time.sleep(_AGAIN_S)
        return content is not None

    def abandon(self) -> None:
        """Let no :meth:`fill` wait any longer."""
        self._abandoned = True

    def release(self) -> None:
        """Leave all memory to the kernel: every page is there, or was given up and is zero."""
        for region in self._regions.items:
            self._userfault.unregister(region.address, region.size)
        # Whoever gives up memory at this moment waits for us to read about it. A process that
        # stands still keeps the sign of that, though nothing is left to be read.
        first, deadline = self._regions.items[0], time.monotonic() + _RELEASE_S
        while self._userfault.zero(first.address, self._page)[1] == errno.EAGAIN:
            self._userfault.events()
            if time.monotonic() > deadline:
                break
            time.sleep(_AGAIN_S)

    def _unit_at(self, address: int) -> Unit:
        region = self._regions.at_address(address)
        if region is None:
            raise SnapmigError(f"fault at the address {address:#x}, outside of all memory regions")
        page = (region.start + address - region.address) // self._page
        return Unit(region, page, page + 1)

    def _give_up(self, start: int, stop: int) -> None:
        for region in self._regions.items:
            low = max(start, region.address)
            high = min(stop, region.address + region.size)
            if low < high:
                shift = region.start - region.address
                self._given_up[(low + shift) // self._page : -(-(high + shift) // self._page)] = (
                    True
                )
                self.removed += high - low

    def _fill_once(
        self, unit: Unit, content: Bytes | None, mask: Mask | None, wanted: int | None
    ) -> bool:
        part = slice(unit.first, unit.end)
        with self._lock:
            given_up = self._given_up[part]
            zero = wanted is not None and bool(self._given_up[wanted])
            todo = ~(self._filled[part] | given_up)
            if wanted is not None:
                todo[wanted - unit.first] = not zero
            parts = [(todo, content)]
            if mask is not None:
                parts = [(todo & mask, content), (todo & ~mask, None)]
            for pages, source in parts:
                for first, count in runs(pages):
                    if not self._put(unit, first, count, source):
                        return False
            if wanted is not None:
                if zero and not self._put(unit, wanted - unit.first, 1, None):
                    return False
                # Somebody who came while others filled the page may still sleep.
                self._userfault.wake(self._address(unit, wanted), self._page)
        return True

    def _put(self, unit: Unit, first: int, count: int, content: Bytes | None) -> bool:
        # Return False while an event waits to be read: all is to be looked at anew then.
        end, most = first + count, count
        while first < end:
            pages = min(most, end - first)
            done, error = self._try(unit, first, pages, content)
            if error == errno.EAGAIN:
                return False
            if error == errno.ENOENT and pages > 1:
                most = 1  # a part of the range is gone, or it lies in two mappings
                continue
            if error in (errno.EEXIST, errno.ENOENT):
                done += 1  # filled by the process itself, or out of everybody's reach
            elif error == errno.ESRCH:
                raise MemoryGoneError("it has ended")
            elif error:
                message = f"can't fill its memory at {self._address(unit, unit.first + first):#x}"
                raise SnapmigError(f"{message}: {os.strerror(error)}")
            self._filled[unit.first + first : unit.first + first + done] = True
            first += done
        return True

    def _try(self, unit: Unit, first: int, pages: int, content: Bytes | None) -> tuple[int, int]:
        # Return the number of pages done, and the error that stopped it.
        address, length = self._address(unit, unit.first + first), pages * self._page
        if content is not None:
            source = content.ctypes.data + first * self._page
            done, error = self._userfault.copy(address, source, length)
        elif self._page == mmap.PAGESIZE:
            done, error = self._userfault.zero(address, length)
        else:
            done, error = self._userfault.copy(address, self._zeros.ctypes.data, self._page)
        return done // self._page, error

    def _address(self, unit: Unit, page: int) -> int:
        return unit.region.address + page * self._page - unit.region.start


def _cut(region: Region, start: int, stop: int) -> Unit:
    start, stop = max(start, region.start), min(stop, region.start + region.size)
    return Unit(region, start // PAGE_SIZE, stop // PAGE_SIZE)
