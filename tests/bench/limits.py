"""
What no program can be faster than here: the bare calls, and the allocation of pages.

Everything stands ready in memory before the clock starts, with complete page tables, and packets
are dealt out to the processes by turns. Nothing is checked, counted or kept.
"""

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip_lib

from tests.bench.measure import sync_file
from tests.bench.parallel import ParallelTime, in_processes, populate

PAGE = 4096
PACKET = 512 * 1024
WINDOW_BITS = 15
LEVEL = 1


@dataclass(frozen=True)
class Limit:
    """A limit's name and its run."""

    name: str
    operation: str
    run: Callable[[int, Path], ParallelTime]
    on_destination: bool


class Packets:
    """
    An image's packets of 512 KiB in memory, with the streams that they compress to.

    :param image: a file of whole pages; its holes are not touched
    :param jobs: processes that prepare it
    """

    def __init__(self, image: Path, jobs: int) -> None:
        self.size = image.stat().st_size
        if self.size == 0 or self.size % PAGE:
            raise ValueError(f"{image}: {self.size} bytes, expected whole pages of {PAGE}")
        self.count = -(-self.size // PACKET)
        with image.open("rb") as file:
            self._mapping = mmap.mmap(file.fileno(), self.size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._extents = np.array(list(_extents(file.fileno(), self.size))).reshape(-1, 2)
        self._pages = np.frombuffer(self._mapping, np.uint8)
        self._data = mmap.mmap(-1, self.count * PACKET)
        self._streams = mmap.mmap(-1, self.count * PACKET)
        self._masks = _shared((self.count, PACKET // PAGE), np.bool_)
        self._stream_sizes = _shared((self.count,), np.int64)
        in_processes(jobs, self._compress_all, lambda number: range(number, self.count, jobs))

    @property
    def data_pages(self) -> int:
        """Pages that are not zero."""
        return int(self._masks.sum())

    @property
    def raw_packets(self) -> int:
        """Packets that do not become smaller; their compression counts all the same."""
        return int((self._masks.any(axis=1) & (self._stream_sizes == 0)).sum())

    def compress(self, jobs: int, _folder: Path) -> ParallelTime:
        """Scan every packet that is not a hole for zero pages, compress the others."""

        def work(ready: Any) -> None:
            for scanned, data in ready:
                _data_mask(scanned)
                if data is not None:
                    _compress(data)

        return in_processes(jobs, work, lambda number: self._ready_pages(number, jobs))

    def decompress(self, jobs: int, _folder: Path) -> ParallelTime:
        """Decompress every stream."""

        def work(ready: Any) -> None:
            for stream, size in ready:
                # One byte more than is due spares ISA-L a second round.
                igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE, WINDOW_BITS).decompress(
                    stream, size + 1
                )

        return in_processes(jobs, work, lambda number: self._ready_streams(number, jobs))

    def write_stored(self, jobs: int, folder: Path) -> ParallelTime:
        """Write as many bytes as a snapshot stores, each packet's to a place of its own."""
        return self._write(jobs, folder, self._stored_pieces)

    def write_restored(self, jobs: int, folder: Path) -> ParallelTime:
        """Write as many bytes as a restored image has pages that are not zero, run by run."""
        return self._write(jobs, folder, self._restored_pieces)

    def _compress_all(self, packets: range) -> None:
        for k in packets:
            pages = self._content(k)
            if pages is None:
                continue
            mask = _data_mask(pages)
            self._masks[k, : len(mask)] = mask
            data = pages[mask].reshape(-1)
            if not data.size:
                continue
            start = k * PACKET
            self._data[start : start + data.size] = data.data
            stream = _compress(data)
            if -(-len(stream) // PAGE) < data.size // PAGE:
                self._stream_sizes[k] = len(stream)
                self._streams[start : start + len(stream)] = stream

    def _ready_pages(self, number: int, jobs: int) -> list[tuple[Any, Any]]:
        ready = []
        for k in range(number, self.count, jobs):
            pages = self._content(k)
            if pages is None:
                continue
            size = self._data_size(k)
            populate(self._mapping, k * PACKET, pages.size)
            populate(self._data, k * PACKET, size)
            data = memoryview(self._data)[k * PACKET : k * PACKET + size] if size else None
            ready.append((pages, data))
        return ready

    def _ready_streams(self, number: int, jobs: int) -> list[tuple[Any, int]]:
        ready = []
        for k in range(number, self.count, jobs):
            if size := int(self._stream_sizes[k]):
                populate(self._streams, k * PACKET, size)
                stream = memoryview(self._streams)[k * PACKET : k * PACKET + size]
                ready.append((stream, self._data_size(k)))
        return ready

    def _content(self, k: int) -> Any:
        # The pages of a packet as they are mapped, or a copy where a part of them is a hole, or
        # None where all of it is one: reading a hole through a mapping would allocate it.
        start, stop = k * PACKET, min((k + 1) * PACKET, self.size)
        low = np.searchsorted(self._extents[:, 1], start, side="right")
        high = np.searchsorted(self._extents[:, 0], stop)
        inside = np.clip(self._extents[low:high], start, stop).tolist()
        if not inside:
            return None
        if inside == [[start, stop]]:
            return self._pages[start:stop].reshape(-1, PAGE)
        copy = np.zeros(stop - start, np.uint8)
        for first, end in inside:
            copy[first - start : end - start] = self._pages[first:end]
        return copy.reshape(-1, PAGE)

    def _data_size(self, k: int) -> int:
        return int(np.count_nonzero(self._masks[k])) * PAGE

    def _stored_pieces(self, k: int) -> list[tuple[int, int]]:
        if size := int(self._stream_sizes[k]):
            return [(k * PACKET, size)]
        return self._restored_pieces(k)

    def _restored_pieces(self, k: int) -> list[tuple[int, int]]:
        edges = np.flatnonzero(np.diff(self._masks[k], prepend=False, append=False)).tolist()
        return [
            (k * PACKET + first * PAGE, (stop - first) * PAGE)
            for first, stop in zip(edges[::2], edges[1::2], strict=True)
        ]

    def _write(
        self, jobs: int, folder: Path, pieces: Callable[[int], list[tuple[int, int]]]
    ) -> ParallelTime:
        path = folder / "limit.bin"
        with path.open("wb") as file:
            file.truncate(self.count * PACKET)

        def ready(number: int) -> Any:
            packets = range(number, self.count, jobs)
            hot = memoryview(np.random.default_rng(1).bytes(PACKET))
            return os.open(path, os.O_WRONLY), hot, [p for k in packets for p in pieces(k)]

        def work(prepared: Any) -> None:
            fd, hot, places = prepared
            for offset, size in places:
                os.pwrite(fd, hot[:size], offset)

        try:
            took = in_processes(jobs, work, ready)
            started = time.monotonic()
            sync_file(path)
            synced = time.monotonic() - started
        finally:
            path.unlink()
        return ParallelTime(took.slowest + synced, took.mean + synced, took.cpu)


def limits(packets: Packets) -> tuple[Limit, ...]:
    """Return the limits of saving and restoring an image."""
    return (
        Limit("bare scan and compress", "save", packets.compress, on_destination=False),
        Limit("bare write of packets", "save", packets.write_stored, on_destination=True),
        Limit("bare decompress", "restore", packets.decompress, on_destination=False),
        Limit("bare write of pages", "restore", packets.write_restored, on_destination=True),
    )


def _data_mask(pages: Any) -> Any:
    return pages.view(np.bool_).any(axis=1)


def _compress(data: Any) -> bytes:
    return igzip_lib.compress(
        data, LEVEL, igzip_lib.COMP_DEFLATE, igzip_lib.MEM_LEVEL_DEFAULT, WINDOW_BITS
    )


def _shared(shape: tuple[int, ...], kind: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(mmap.mmap(-1, size), kind).reshape(shape)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here on
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end
