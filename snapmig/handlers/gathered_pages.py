"""
Pages of a stream, gathered into packets by the parent process.

They come in any order: of a background snapshot first those that the guest is about to write. A
packet goes to a worker once all its pages are there, so it is encoded once. If memory gets short,
the fullest packets go early, and their other pages are merged later.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.packet_buffers import PacketBuffers
from snapmig.pages import Bytes

__all__ = ("MOST_PAGES", "Gathered", "GatheredPages")

MOST_PAGES = 1 << 16
"""Pages in memory: 256 MiB."""
_RUN = 1 << 10
"""Pages that come at once, at most."""
_EARLY = 16
"""Packets that go early at once."""


class Gathered(NamedTuple):
    """
    Pages of a packet, to be stored.

    :param buffer: number of their buffer
    """

    packet: int
    buffer: int


class _Part(NamedTuple):
    # Pages of one packet among consecutive ones.
    packet: int
    pages: slice
    given: slice


class GatheredPages:
    """
    Takes pages and zero pages, gives gathered packets.

    :param most_pages: in memory; default: :data:`MOST_PAGES`
    :ivar zero_runs: packets that turned out to be zero, as far as nobody has taken them from here
    """

    def __init__(
        self, geometry: Geometry, buffers: PacketBuffers, most_pages: int | None = None
    ) -> None:
        self._buffers = buffers
        self._packet_pages = geometry.packet_pages
        blocks = range(len(geometry.blocks))
        self._starts = [geometry.block_start(each) // PAGE_SIZE for each in blocks]
        self._first = [geometry.block_packets(each).start for each in blocks]
        self._sizes = _packet_sizes(geometry)
        self._left = self._sizes.tolist()
        self._stored = np.zeros(geometry.packet_count, np.bool_)
        self._open: dict[int, int] = {}
        self._count = [0] * len(buffers)
        self._allocated = [0] * len(buffers)
        self._last = -1
        # Memory of a whole buffer is kept for the next one: new memory costs as much as the copy.
        self._warm: list[int] = []
        self._cold = list(range(len(buffers) - 1, -1, -1))
        self._most = most_pages or MOST_PAGES
        self._in_memory = 0
        self._least_free = _RUN // self._packet_pages + 2
        self._ready: deque[Gathered] = deque()
        self._busy: set[int] = set()
        self._zero = range(0)
        self.zero_runs: deque[range] = deque()

    @property
    def full(self) -> bool:
        """True if no more pages can be taken now."""
        while self._in_memory + _RUN > self._most and self._warm:
            self._cool(self._warm.pop())
        return (
            self._in_memory + _RUN > self._most
            or len(self._cold) + len(self._warm) < self._least_free
        )

    @property
    def is_idle(self) -> bool:
        """True if no packet waits to be stored, or is being stored."""
        return not (self._ready or self._busy)

    @property
    def is_empty(self) -> bool:
        """True if every page taken has been stored."""
        return self.is_idle and not (self._open or self.zero_runs)

    def take_pages(self, first: int, pages: Bytes) -> None:
        """Take consecutive pages, as ``(n, 4096)``, from a page number in RAM offsets on."""
        for packet, inside, given in self._parts(first, len(pages)):
            buffer = self._open.get(packet)
            if buffer is None:
                buffer = self._open_buffer(packet, whole=inside.start == 0)
            self._buffers.pages[buffer, inside] = pages[given]
            self._note(packet, buffer, inside)

    def take_zeros(self, first: int, count: int) -> None:
        """Take consecutive zero pages."""
        for packet, inside, _ in self._parts(first, count):
            buffer = self._open.get(packet)
            if buffer is None and not self._stored[packet]:  # zero until something else comes
                self._arrive(packet, inside.stop - inside.start)
                continue
            if buffer is None:
                buffer = self._open_buffer(packet, whole=False)
            self._buffers.pages[buffer, inside] = 0
            self._note(packet, buffer, inside)

    def next_ready(self) -> Gathered | None:
        """Return a packet to be stored; none of its pages is being stored by anybody else."""
        for number, found in enumerate(self._ready):
            if found.packet not in self._busy:
                del self._ready[number]
                self._busy.add(found.packet)
                return found
        return None

    def finish(self, stored: Gathered) -> None:
        """Note that a packet was stored, and use its buffer again."""
        self._busy.remove(stored.packet)
        buffer = stored.buffer
        self._buffers.masks[buffer] = False
        self._count[buffer] = 0
        if self._allocated[buffer] == self._packet_pages:
            self._warm.append(buffer)
        else:
            self._cool(buffer)

    def close_fullest(self) -> None:
        """Have the packets with most pages stored before they are whole, to free memory."""
        # The last one is being filled.
        packets = [packet for packet in self._open if packet != self._last] or list(self._open)
        for packet in heapq.nlargest(_EARLY, packets, key=self._pages_of):
            self._close(packet)

    def close_all(self) -> None:
        """Have all packets stored with the pages they have: no more will come."""
        for packet in list(self._open):
            self._close(packet)
        self._end_zero_run()

    def _parts(self, first: int, count: int) -> Iterator[_Part]:
        # Consecutive pages are of one RAM block.
        block = bisect_right(self._starts, first) - 1
        size = self._packet_pages
        packet, inside = divmod(first - self._starts[block], size)
        packet += self._first[block]
        done = 0
        while done < count:
            length = min(size - inside, count - done)
            yield _Part(packet, slice(inside, inside + length), slice(done, done + length))
            done += length
            packet, inside = packet + 1, 0

    def _open_buffer(self, packet: int, *, whole: bool) -> int:
        # Others may get a few pages only.
        warm = self._warm and (whole or not self._cold)
        buffer = (self._warm if warm or not self._cold else self._cold).pop()
        self._open[packet] = buffer
        return buffer

    def _note(self, packet: int, buffer: int, inside: slice) -> None:
        mask = self._buffers.masks[buffer, inside]
        new = len(mask) - (int(np.count_nonzero(mask)) if self._count[buffer] else 0)
        mask[:] = True
        self._count[buffer] += new
        if self._count[buffer] > self._allocated[buffer]:
            self._in_memory += self._count[buffer] - self._allocated[buffer]
            self._allocated[buffer] = self._count[buffer]
        self._last = packet
        self._arrive(packet, new)

    def _arrive(self, packet: int, count: int) -> None:
        # A page that comes twice may let a packet seem whole too early: then it is merged later.
        self._left[packet] -= count
        if self._left[packet] <= 0:
            self._close(packet)

    def _close(self, packet: int) -> None:
        self._left[packet] = int(self._sizes[packet])
        buffer = self._open.pop(packet, None)
        if buffer is not None:
            self._stored[packet] = True
            self._ready.append(Gathered(packet, buffer))
        elif packet == self._zero.stop and self._zero:
            self._zero = range(self._zero.start, packet + 1)
        else:
            self._end_zero_run()
            self._zero = range(packet, packet + 1)

    def _pages_of(self, packet: int) -> int:
        return self._count[self._open[packet]]

    def _end_zero_run(self) -> None:
        if self._zero:
            self.zero_runs.append(self._zero)
        self._zero = range(0)

    def _cool(self, buffer: int) -> None:
        self._buffers.free(buffer)
        self._in_memory -= self._allocated[buffer]
        self._allocated[buffer] = 0
        self._cold.append(buffer)


def _packet_sizes(geometry: Geometry) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    # Pages of each packet: the last of a block may be smaller.
    sizes = np.full(geometry.packet_count, geometry.packet_pages, np.int32)
    for number in range(len(geometry.blocks)):
        last = geometry.block_packets(number).stop - 1
        sizes[last] = geometry.place(last).pages
    return sizes
