"""
Lower limits of any program here: the bare calls, and the allocation of pages.

Everything stands ready in memory before the clock starts, with complete page tables, and packets
are dealt out to the processes by turns. Nothing is checked, counted or kept.
"""

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.codecs import PACKET, PAGE, WRITE_PAGES, Codec
from tests.bench.measure import sync_file
from tests.bench.parallel import ParallelTime, in_processes, populate


@dataclass(frozen=True)
class Limit:
    """
    A limit's name and its run.

    :param codec: whose calls it makes, or whose streams it writes; None where that is all one
    """

    name: str
    operation: str
    run: Callable[[int, Path], ParallelTime]
    on_destination: bool
    codec: Codec | None = None


class Packets:
    """
    An image's packets of 512 KiB in memory.

    :param image: a file of whole pages; its holes are not touched
    :param jobs: processes that prepare it
    """

    def __init__(self, image: Path, jobs: int) -> None:
        self.image = image
        self.size = image.stat().st_size
        if self.size == 0 or self.size % PAGE:
            raise ValueError(f"{image}: {self.size} bytes, expected whole pages of {PAGE}")
        self.count = -(-self.size // PACKET)
        with image.open("rb") as file:
            self._mapping = mmap.mmap(file.fileno(), self.size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._extents = np.array(list(_extents(file.fileno(), self.size))).reshape(-1, 2)
        self._pages = np.frombuffer(self._mapping, np.uint8)
        self._data = mmap.mmap(-1, self.count * PACKET)
        self.masks = shared((self.count, PACKET // PAGE), np.bool_)
        in_processes(jobs, self._gather_all, lambda number: range(number, self.count, jobs))

    @property
    def data_pages(self) -> int:
        """Pages that are not zero."""
        return int(self.masks.sum())

    def in_use(self) -> list[int]:
        """Return the packets that are not all zero."""
        found: list[int] = np.flatnonzero(self.masks.any(axis=1)).tolist()
        return found

    def in_extents(self) -> list[int]:
        """Return the packets that are no holes."""
        first, last = self._extents[:, 0] // PACKET, (self._extents[:, 1] - 1) // PACKET
        pairs = zip(first.tolist(), last.tolist(), strict=True)
        return sorted({k for start, end in pairs for k in range(start, end + 1)})

    def data(self, k: int) -> memoryview:
        """Return a packet's pages that are not zero, one after the other."""
        return memoryview(self._data)[k * PACKET : k * PACKET + self.data_size(k)]

    def data_size(self, k: int) -> int:
        """Return how many bytes those are."""
        return int(np.count_nonzero(self.masks[k])) * PAGE

    def ready_pages(self, packets: range) -> list[tuple[Any, Any]]:
        """Return, of packets that are not holes, the pages and what of them is to compress."""
        ready = []
        for k in packets:
            pages = self._content(k)
            if pages is None:
                continue
            size = self.data_size(k)
            if np.may_share_memory(pages, self._pages):  # a copy is made where a part is a hole
                populate(self._mapping, k * PACKET, pages.size)
            populate(self._data, k * PACKET, size)
            ready.append((pages, self.data(k) if size else None))
        return ready

    def runs(self, k: int) -> list[tuple[int, int]]:
        """Return a packet's runs of pages that are not zero: offsets in the image, and sizes."""
        edges = np.flatnonzero(np.diff(self.masks[k], prepend=False, append=False)).tolist()
        return [
            (k * PACKET + first * PAGE, (stop - first) * PAGE)
            for first, stop in zip(edges[::2], edges[1::2], strict=True)
        ]

    def write_restored(self, jobs: int, folder: Path) -> ParallelTime:
        """Write as many bytes as a restored image has pages that are not zero, run by run."""
        return write_pieces(self.count, jobs, folder, self.runs)

    def _gather_all(self, packets: range) -> None:
        for k in packets:
            pages = self._content(k)
            if pages is None:
                continue
            mask = data_mask(pages)
            self.masks[k, : len(mask)] = mask
            data = pages[mask].reshape(-1)
            self._data[k * PACKET : k * PACKET + data.size] = data.data

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


class Streams:
    """
    Packets encoded by a codec.

    :param jobs: processes that prepare it
    """

    def __init__(self, packets: Packets, codec: Codec, jobs: int) -> None:
        self.codec = codec
        self._packets = packets
        self._streams = mmap.mmap(-1, packets.count * PACKET)
        self._sizes = shared((packets.count,), np.int64)
        in_processes(jobs, self._compress_all, lambda number: range(number, packets.count, jobs))

    @property
    def raw_packets(self) -> int:
        """Packets that do not become smaller; their compression counts all the same."""
        return int((self._packets.masks.any(axis=1) & (self._sizes == 0)).sum())

    def compress(self, jobs: int, _folder: Path) -> ParallelTime:
        """Scan every packet that is not a hole for zero pages, compress the others."""

        def work(ready: Any) -> None:
            compress = self.codec.compressor()
            for scanned, data in ready:
                data_mask(scanned)
                if data is not None:
                    compress(data)

        return in_processes(jobs, work, lambda number: self._ready_pages(number, jobs))

    def decompress(self, jobs: int, _folder: Path) -> ParallelTime:
        """Decompress every stream."""

        def work(ready: Any) -> None:
            decompress = self.codec.decompressor()
            for stream, size in ready:
                decompress(stream, size)

        return in_processes(jobs, work, lambda number: self._ready_streams(number, jobs))

    def write_stored(self, jobs: int, folder: Path) -> ParallelTime:
        """Write as many bytes as a snapshot stores, each packet's to a place of its own."""
        return write_pieces(self._packets.count, jobs, folder, self._pieces)

    def stream(self, k: int) -> memoryview | None:
        """Return a packet's stream, None where the packet is empty or stored as it is."""
        size = int(self._sizes[k])
        return memoryview(self._streams)[k * PACKET : k * PACKET + size] if size else None

    def _compress_all(self, packets: range) -> None:
        compress = self.codec.compressor()
        for k in packets:
            size = self._packets.data_size(k)
            if not size:
                continue
            stream = compress(self._packets.data(k))
            if -(-len(stream) // PAGE) < size // PAGE:
                self._sizes[k] = len(stream)
                self._streams[k * PACKET : k * PACKET + len(stream)] = stream

    def _ready_pages(self, number: int, jobs: int) -> list[tuple[Any, Any]]:
        self.codec.compressor()  # its import is not to be timed
        return self._packets.ready_pages(range(number, self._packets.count, jobs))

    def _ready_streams(self, number: int, jobs: int) -> list[tuple[Any, int]]:
        self.codec.decompressor()
        ready = []
        for k in range(number, self._packets.count, jobs):
            stream = self.stream(k)
            if stream is not None:
                populate(self._streams, k * PACKET, len(stream))
                ready.append((stream, self._packets.data_size(k)))
        return ready

    def _pieces(self, k: int) -> list[tuple[int, int]]:
        stream = self.stream(k)
        return self._packets.runs(k) if stream is None else [(k * PACKET, len(stream))]


def write_pieces(
    count: int, jobs: int, folder: Path, pieces: Callable[[int], list[tuple[int, int]]]
) -> ParallelTime:
    """
    Write a file of packets and sync it, from memory that is always the same.

    :param pieces: offsets and sizes, at most a packet's, of what is written of each packet
    """
    path = folder / "limit.bin"
    with path.open("wb") as file:
        file.truncate(count * PACKET)

    def ready(number: int) -> Any:
        hot = memoryview(np.random.default_rng(1).bytes(PACKET))
        places = [piece for k in range(number, count, jobs) for piece in pieces(k)]
        return os.open(path, os.O_WRONLY), hot, places

    def work(prepared: Any) -> None:
        fd, hot, places = prepared
        for offset, size in places:
            os.pwrite(fd, hot[:size], offset)

    return written(path, jobs, work, ready)


def written(
    path: Path, jobs: int, work: Callable[[Any], None], ready: Callable[[int], Any]
) -> ParallelTime:
    """Run processes that write a file, sync it within the time, and remove it."""
    try:
        took = in_processes(jobs, work, ready)
        started = time.monotonic()
        sync_file(path)
        synced = time.monotonic() - started
    finally:
        path.unlink()
    return ParallelTime(took.slowest + synced, took.mean + synced, took.cpu)


def limits(packets: Packets, streams: Iterable[Streams]) -> list[Limit]:
    """Return the limits of saving and restoring an image, by each codec."""
    found = []
    for one in streams:
        codec = one.codec
        scan, write = codec.limits["save"]
        decompress, _ = codec.limits["restore"]
        found += [
            Limit(scan, "save", one.compress, on_destination=False, codec=codec),
            Limit(write, "save", one.write_stored, on_destination=True, codec=codec),
            Limit(decompress, "restore", one.decompress, on_destination=False, codec=codec),
        ]
    if found:
        found.append(Limit(WRITE_PAGES, "restore", packets.write_restored, on_destination=True))
    return found


def data_mask(pages: Any) -> Any:
    """Return which pages are not zero."""
    return pages.view(np.bool_).any(axis=1)


def shared(shape: tuple[int, ...], kind: Any) -> Any:
    """Return an array of zeros that forked processes share."""
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
