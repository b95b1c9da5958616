"""
Files without a name that Cloud Hypervisor takes as a guest's memory, filled where it asks.

A packet is written once, before any of its pages is answered: the guest can't have touched them
until then, and may have changed them afterwards. A page that is a hole when it is asked for, as it
is zero or was given up by the guest, becomes a page of zeros.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from snapmig.daemons.packet_source import PacketSource
from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.handed_over import SlotPlan
from snapmig.images.spans import Span, piece_spans
from snapmig.pages import as_pages, data_mask, runs
from snapmig.system.files import pwrite_all

__all__ = ("LazyFiles", "SlotFiles")

_LARGEST_PAGE = 1 << 30
_ZEROS = bytes(PAGE_SIZE)


class SlotFiles:
    """
    The files of all slots; a context manager.

    :ivar fds: descriptors by slot
    """

    def __init__(self, plans: Sequence[SlotPlan]) -> None:
        self.fds: dict[int, int] = {}
        self._plans = plans
        try:
            for plan in plans:
                fd = os.memfd_create(f"snapmig-slot-{plan.slot}", os.MFD_CLOEXEC)
                self.fds[plan.slot] = fd
                os.ftruncate(fd, plan.size)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SlotFiles:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close them; they live as long as somebody else has them open."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def places(self) -> Iterator[tuple[int, Span]]:
        """Yield the descriptor and the place in its file of each range of RAM."""
        for plan in self._plans:
            for span in plan.spans:
                yield self.fds[plan.slot], span


class LazyFiles:
    """
    The same, filled packet by packet.

    :param ahead: packets decoded after each that was asked for, because the next ones are as soon
        as no fault waits
    """

    def __init__(self, files: SlotFiles, source: PacketSource, jobs: int) -> None:
        self._source = source
        self._places = sorted(files.places(), key=lambda place: place[1].start)
        self._by_address = piece_spans(source.geometry.blocks)
        self._pool = ThreadPoolExecutor(jobs, "packet")
        self._written: dict[int, Future[None]] = {}
        self._lock = threading.Lock()
        self._ahead = jobs

    def close(self) -> None:
        """Wait for what is under way, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def fill(self, gpa: int, length: int) -> None:
        """
        Have contents for all of a range of guest physical addresses.

        :raises SnapmigError: that is no RAM of the guest, or can't be read
        """
        if not 0 < length <= _LARGEST_PAGE or gpa % PAGE_SIZE or length % PAGE_SIZE:
            raise SnapmigError(f"{length} bytes at {gpa:#x} are asked for, expected whole pages")
        ranges = list(self._ram(gpa, gpa + length))
        if sum(stop - start for start, stop in ranges) != length:
            raise SnapmigError(f"{length} bytes at {gpa:#x} are asked for, where no RAM is")
        geometry = self._source.geometry
        for start, stop in ranges:
            first, last = geometry.packet_at(start), geometry.packet_at(stop - 1)
            under_way = [self._packet(number, True) for number in range(first, last + 1)]
            for number in range(last + 1, min(last + 1 + self._ahead, geometry.packet_count)):
                self._packet(number, False)
            for each in under_way:
                each.result()
            for page in range(start, stop, PAGE_SIZE):
                self._close_hole(page)

    def _ram(self, gpa: int, end: int) -> Iterator[tuple[int, int]]:
        for span in self._by_address:
            low = max(gpa, span.offset)
            high = min(end, span.offset + span.stop - span.start)
            if low < high:
                yield span.start + low - span.offset, span.start + high - span.offset

    def _packet(self, number: int, again: bool) -> Future[None]:
        with self._lock:
            found = self._written.get(number)
            if found is None or (again and found.done() and found.exception() is not None):
                found = self._written[number] = self._pool.submit(self._write, number, not again)
            return found

    def _write(self, number: int, ahead: bool) -> None:
        place = self._source.geometry.place(number)
        start, stop = place.ram_offset, place.ram_offset + place.length
        content = self._source.read(start, stop, ahead=ahead)
        if content is None:
            return
        for first, count in runs(data_mask(as_pages(content))):
            low = start + first * PAGE_SIZE
            high = min(low + count * PAGE_SIZE, stop)
            for fd, at, begin, end in self._in_files(low, high):
                pwrite_all(fd, content[begin - start : end - start], at)

    def _close_hole(self, page: int) -> None:
        for fd, at, _, _ in self._in_files(page, page + PAGE_SIZE):
            try:
                hole = os.lseek(fd, at, os.SEEK_DATA) >= at + PAGE_SIZE
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                hole = True  # up to the end
            if hole:
                pwrite_all(fd, _ZEROS, at)

    def _in_files(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        for fd, span in self._places:
            low, high = max(start, span.start), min(stop, span.stop)
            if low < high:
                yield fd, span.offset + low - span.start, low, high
