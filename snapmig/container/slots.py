"""
Worker side of writing a snapshot: packets into slots, records into the index.

Workers never write the same byte: a packet has one slot, one record, one place for its page
digests, and one worker.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from snapmig.container.format import Encoding, Layout, page_digests_size
from snapmig.container.index import Records, StoredPacket, record_dtype, unpack_records
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Kinds, Mask, runs
from snapmig.sealing.file_key import FileKey
from snapmig.system.files import Buffer, pread_all, pwrite_all, write_error
from snapmig.system.libc import punch_hole, start_writeback, wait_for_writeback

__all__ = ("SlotPlan", "SlotWriter", "read_stored", "stored_ranges", "write_stored")


class SlotPlan(NamedTuple):
    """
    Places of the packets and records of a snapshot.

    :param path: opens the file, also in another process
    :param shown: the file's display name
    :param needed: size of the complete file in bytes, reported when its filesystem is full
    :param to_disk: the file stays on this disk, so writing it back should begin early
    :param page_digests_offset: 0 without page digests
    :param key: of a sealed snapshot
    """

    path: str
    layout: Layout
    packet_size: int
    index_offset: int
    data_offset: int
    shown: str = ""
    needed: int = 0
    to_disk: bool = True
    page_digests_offset: int = 0
    key: FileKey | None = None

    def slot_offset(self, packet: int) -> int:
        """Return the file offset of a packet's slot in the fixed layout."""
        return self.data_offset + packet * self.packet_size


class SlotWriter:
    """Writes packets and records of one snapshot; each process has its own."""

    def __init__(self, plan: SlotPlan) -> None:
        self.plan = plan
        self._fd = os.open(plan.path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False  # with the worker's handler

    def write_packet(self, offset: int, kinds: Kinds, payload: Buffer, encoding: Encoding) -> None:
        """Write a packet's stored bytes at its place."""
        try:
            write_stored(self._fd, self.plan.layout, offset, kinds, payload, encoding)
        except OSError as error:
            raise write_error(error, self.plan.shown, self.plan.needed) from error

    def start_writing_back(self, offset: int, length: int) -> None:
        """Start writing a range to the disk while the processors continue."""
        if self.plan.to_disk:
            start_writeback(self._fd, offset, length)

    def wait_for_disk(self, offset: int, length: int) -> None:
        """Wait until the writeback of a range is done."""
        wait_for_writeback(self._fd, offset, length)

    def free_rest(self, packet: int, mask: Mask, stored_size: int, encoding: Encoding) -> None:
        """
        Free the rest of a packet's slot, beside its stored bytes, in the fixed layout.

        Rewriting a packet in fewer bytes leaves old ones behind. If the filesystem can't punch
        holes, they stay after a stream, and are overwritten with zeros between the pages of a raw
        packet, because those can be mapped.
        """
        size = self.plan.packet_size
        used = [(0, stored_size)]
        if encoding == Encoding.RAW:
            used = [(first * PAGE_SIZE, (first + count) * PAGE_SIZE) for first, count in runs(mask)]
        slot = self.plan.slot_offset(packet)
        for (_, end), (start, _) in pairwise([(0, 0), *used, (size, size)]):
            if end >= start or punch_hole(self._fd, slot + end, start - end):
                continue
            if encoding in (Encoding.RAW, Encoding.EMPTY):
                pwrite_all(self._fd, bytes(start - end), slot + end)

    def read_records(self, first: int, count: int) -> Records:
        """Return records of consecutive packets, written before."""
        dtype = record_dtype(self.plan.packet_size)
        offset = self.plan.index_offset + first * dtype.itemsize
        raw = pread_all(self._fd, count * dtype.itemsize, offset)
        return np.frombuffer(bytearray(raw), dtype)

    def read_packet(self, packet: StoredPacket) -> bytes:
        """Return the stored bytes of a packet written before."""
        return read_stored(
            lambda offset, length: pread_all(self._fd, length, offset), self.plan.layout, packet
        )

    def read_page_digests(self, number: int) -> bytes:
        """Return the digests of all pages of a full packet written before, unchecked."""
        size = page_digests_size(self.plan.packet_size)
        return pread_all(self._fd, size, self.plan.page_digests_offset + number * size)

    @property
    def file_size(self) -> int:
        """Size of the file now."""
        return os.fstat(self._fd).st_size

    def tidy(self, records: Records, digests: Mapping[int, bytes]) -> None:
        """
        Free what an earlier run left of consecutive packets beside what they have now.

        The filesystem must be able to punch holes.

        :param records: as they will be
        :param digests: page digests, as for :meth:`write_page_digests`
        """
        first, size = int(records["packet"][0]), page_digests_size(self.plan.packet_size)
        if self.plan.page_digests_offset:
            for start, count in runs(~np.isin(np.arange(len(records)), list(digests))):
                self._clear(self.plan.page_digests_offset + (first + start) * size, count * size)
        if self.plan.layout != Layout.FIXED:
            return
        if not records["stored_size"].any():
            self._clear(self.plan.slot_offset(first), len(records) * self.plan.packet_size)
            return
        for packet in unpack_records(records):
            stored = packet.packet, packet.mask, packet.stored_size, Encoding(packet.encoding)
            self.free_rest(*stored)

    def _clear(self, offset: int, length: int) -> None:
        try:
            punch_hole(self._fd, offset, length)
        except OSError as error:
            raise write_error(error, self.plan.shown, self.plan.needed) from error

    def write_records(self, records: Records) -> None:
        """Write sealed records of consecutive packets."""
        first = int(records["packet"][0])
        offset = self.plan.index_offset + first * records.dtype.itemsize
        self._write(records.tobytes(), offset)

    def write_page_digests(self, first: int, digests: Mapping[int, bytes]) -> None:
        """
        Write the page digests of packets, each for all pages of a full packet.

        :param first: number of the first packet
        :param digests: by distance from the first packet; adjacent ones are written at once
        """
        if not digests:
            return
        size = page_digests_size(self.plan.packet_size)
        mask = np.zeros(max(digests) + 1, np.bool_)
        mask[list(digests)] = True
        for start, count in runs(mask):
            data = b"".join(digests[at] for at in range(start, start + count))
            self._write(data, self.plan.page_digests_offset + (first + start) * size)

    def _write(self, data: bytes, offset: int) -> None:
        try:
            pwrite_all(self._fd, data, offset)
        except OSError as error:
            raise write_error(error, self.plan.shown, self.plan.needed) from error


def write_stored(
    fd: int, layout: Layout, offset: int, kinds: Mask | Kinds, payload: Buffer, encoding: Encoding
) -> None:
    """Write stored bytes; in the fixed layout a raw page goes to its own place in the slot."""
    if encoding != Encoding.RAW or layout != Layout.FIXED:
        pwrite_all(fd, payload, offset)
        return
    pages: Bytes = payload
    done = 0
    for first, count in runs(kinds):
        pwrite_all(fd, pages[done : done + count], offset + first * PAGE_SIZE)
        done += count


def read_stored(read: Callable[[int, int], bytes], layout: Layout, packet: StoredPacket) -> bytes:
    """
    Return a packet's stored bytes, fewer only if the snapshot ends early.

    :param read: returns bytes by offset and length
    """
    ranges = stored_ranges(layout, packet)
    if len(ranges) == 1:
        return read(*ranges[0])
    return b"".join(read(offset, length) for offset, length in ranges)


def stored_ranges(layout: Layout, packet: StoredPacket) -> list[tuple[int, int]]:
    """Return the offsets and lengths of a packet's stored bytes."""
    if packet.encoding != Encoding.RAW or layout != Layout.FIXED:
        return [(packet.offset, packet.stored_size)]
    return [
        (packet.offset + first * PAGE_SIZE, count * PAGE_SIZE)
        for first, count in runs(packet.kinds)
    ]
