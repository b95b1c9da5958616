"""
Packets served to a guest that runs already: those it asks for, and all others meanwhile.

A worker writes a packet as a section of the migration into a buffer in shared memory, and the
parent process, which alone has the connection, sends it from there.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from snapmig.chains.reader import ReadPlan, open_chain
from snapmig.container.index import StoredPacket
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE, Geometry, PacketPlace
from snapmig.handlers.counters import Counter
from snapmig.images.qemu.records import RAM_CONTINUE, RAM_PAGE, RAM_ZERO, STRIDE, ZERO_STRIDE
from snapmig.migration.postcopy import Frame
from snapmig.pages import Bytes, Mask
from snapmig.system.files import descriptor_path, pwrite_all
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("FETCH", "ReceivedPages", "SectionBuffers", "ServeHandler", "ServePlan")

_HEAD = 8 + 1 + 255
"""Bytes of the first page's address, with the name of its RAM block."""


DATA, ZEROS = 1, 2
"""Pages of a packet: those other than zero, and the others. Their sum is the kind of a task."""
FETCH = 4
"""A task that only announces packets whose tasks follow, so that their bytes come together."""


class SectionBuffers:
    """
    Buffers of a section each in memory that all processes share; a context manager.

    :param count: of buffers
    :param packet_pages: pages in a packet
    """

    def __init__(self, count: int, packet_pages: int, frame: Frame) -> None:
        self.count = count
        self.size = len(frame.head) + _HEAD + packet_pages * STRIDE + len(frame.tail)
        self._fd = os.memfd_create("snapmig-sections", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, count * self.size)
        self._mapped = memoryview(mmap.mmap(self._fd, count * self.size))

    @property
    def path(self) -> str:
        """The path by which other processes open them."""
        return descriptor_path(self._fd)

    def content(self, number: int, length: int) -> memoryview:
        """Return the first bytes of a buffer."""
        return self._mapped[number * self.size : number * self.size + length]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)


class ReceivedPages:
    """
    Pages that the destination has already, in memory that all processes share; a context manager.

    :param masks: of the RAM blocks in their order, a truth value for each page
    :ivar path: by which other processes open them
    """

    def __init__(self, geometry: Geometry, masks: Iterable[Mask]) -> None:
        self._fd = os.memfd_create("snapmig-received", os.MFD_CLOEXEC)
        self.path = descriptor_path(self._fd)
        for number, mask in enumerate(masks):
            start = geometry.block_packets(number).start * geometry.packet_pages
            pwrite_all(self._fd, mask.tobytes(), start)
        os.ftruncate(self._fd, geometry.packet_count * geometry.packet_pages)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)


class ServePlan(NamedTuple):
    """
    Everything a worker needs to serve, picklable.

    :param read: the snapshot and its parents, the youngest first
    :param blocks: names of its RAM blocks as the destination knows them, and sizes of its pages
    :param frame: of each section
    :param buffers: path of the buffers
    :param size: of a buffer, in bytes
    :param received: path of :class:`ReceivedPages`, None if the destination has none
    """

    read: Sequence[ReadPlan]
    blocks: Sequence[tuple[bytes, int]]
    frame: Frame
    buffers: str
    size: int
    received: str | None = None


class ServeHandler:
    """Decodes packets and writes them as sections into buffers."""

    def __init__(self, plan: ServePlan) -> None:
        self._plan = plan
        self._chain = open_chain(plan.read)
        self._geometry: Geometry = self._chain.snapshot.geometry
        self._mapped = _map(plan.buffers)
        self._received: Mask | None = None
        if plan.received is not None:
            received = _map(plan.received).view(np.bool_)
            self._received = received.reshape(-1, self._geometry.packet_pages)

    def run(self, task: Task, row: Row) -> int:
        """Write a packet into the buffer given by the argument; return the section's length."""
        if task.kind == FETCH:
            return 0
        packets = self._chain.packets(task.first, task.count)
        if packets and task.count > 1:
            raise CorruptSnapshotError("the index has changed", path=self._chain.snapshot.shown)
        if task.kind & DATA:
            self._count(task, packets, row)
        if task.count > 1:
            return 0
        length = self._write(task, packets)
        row[Counter.WRITTEN_BYTES] += length
        return length

    def expect(self, task: Task) -> None:
        """Prefetch stored bytes from a remote snapshot."""
        if task.kind & (DATA | FETCH):
            self._chain.expect(task.first, task.count)

    def notes(self) -> Sequence[str]:
        """Return remarks about packets left to software by the engine."""
        return self._chain.notes()

    def _write(self, task: Task, packets: Sequence[StoredPacket]) -> int:
        place = self._geometry.place(task.first)
        inside = place.ram_offset - self._geometry.block_start(place.block)
        mask = packets[0].in_use[: place.pages] if packets else np.zeros(place.pages, np.bool_)
        missing = np.ones(place.pages, np.bool_)
        if self._received is not None:
            missing = ~self._received[task.first, : place.pages]
        section = self._section(task, place)
        data, zeros = mask & missing, ~mask & missing
        pages = np.empty((0, PAGE_SIZE), np.uint8)
        if task.kind & DATA and data.any():
            for found in self._chain.load_all(packets):
                if found.pages is None:
                    raise found.error or RuntimeError("no pages and no reason")
                pages = found.pages[missing[mask]]
        if task.kind == DATA + ZEROS and self._plan.blocks[place.block][1] > PAGE_SIZE:
            section.add_in_order(_addresses(inside, missing), mask[missing], pages)
            return section.finish()
        if len(pages):
            section.add_pages(_addresses(inside, data), pages)
        if task.kind & ZEROS:
            section.add_zeros(_addresses(inside, zeros))
        return section.finish()

    def _section(self, task: Task, place: PacketPlace) -> _Section:
        # QEMU's own sections end with a whole page, too, however large it is.
        name, page_size = self._plan.blocks[place.block]
        inside = place.ram_offset - self._geometry.block_start(place.block)
        head, tail = self._plan.frame
        if inside % page_size:
            head = b""
        if (inside + place.pages * PAGE_SIZE) % page_size:
            tail = b""
        start = task.argument * self._plan.size
        return _Section(self._mapped[start : start + self._plan.size], Frame(head, tail), name)

    def _count(self, task: Task, packets: Sequence[StoredPacket], row: Row) -> None:
        row[Counter.RAM_BYTES] += len(self._geometry.ram_range(task.packets))
        row[Counter.ENGINE_FAILURES] = self._chain.engine_failures
        row[Counter.DATA_PAGES] += sum(packet.pages for packet in packets)


def _map(path: str) -> Bytes:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return np.frombuffer(mmap.mmap(fd, 0), np.uint8)
    finally:
        os.close(fd)


def _addresses(inside: int, mask: Mask) -> npt.NDArray[np.uint64]:
    return np.uint64(inside) + np.flatnonzero(mask).astype(np.uint64) * np.uint64(PAGE_SIZE)


class _Section:
    # Records one after the other in a buffer; the first one names the RAM block.
    def __init__(self, buffer: Bytes, frame: Frame, block: bytes) -> None:
        self._buffer = buffer
        self._frame = frame
        self._name: bytes = bytes([len(block)]) + block
        self._at = 0
        self._put(frame.head)

    def add_pages(self, addresses: npt.NDArray[np.uint64], pages: Bytes) -> None:
        words = addresses | np.uint64(RAM_PAGE)
        if self._name and len(words):
            self._begin(int(words[0]))
            self._buffer[self._at : self._at + PAGE_SIZE] = pages[0]
            self._at += PAGE_SIZE
            words, pages = words[1:], pages[1:]
        records = self._records(words, STRIDE)
        records[:, 8:] = pages

    def add_zeros(self, addresses: npt.NDArray[np.uint64]) -> None:
        words = addresses | np.uint64(RAM_ZERO)
        if self._name and len(words):
            self._begin(int(words[0]))
            self._put(b"\0")
            words = words[1:]
        self._records(words, ZERO_STRIDE)[:, 8] = 0

    def add_in_order(self, addresses: npt.NDArray[np.uint64], mask: Mask, pages: Bytes) -> None:
        # Pages and zero pages by their addresses; the mask has the former.
        at = 0
        for part in np.split(np.arange(len(mask)), np.flatnonzero(np.diff(mask)) + 1):
            if mask[part].any():
                self.add_pages(addresses[part], pages[at : at + len(part)])
                at += len(part)
            else:
                self.add_zeros(addresses[part])

    def finish(self) -> int:
        # 0 if there is nothing in it.
        if self._name:
            return 0
        self._put(self._frame.tail)
        return self._at

    def _begin(self, word: int) -> None:
        self._put(word.to_bytes(8) + self._name)
        self._name = b""

    def _records(self, words: npt.NDArray[np.uint64], stride: int) -> Bytes:
        size = len(words) * stride
        records = self._buffer[self._at : self._at + size].reshape(-1, stride)
        self._at += size
        words = words | np.uint64(RAM_CONTINUE)
        records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
        return records

    def _put(self, content: bytes) -> None:
        self._buffer[self._at : self._at + len(content)] = np.frombuffer(content, np.uint8)
        self._at += len(content)
