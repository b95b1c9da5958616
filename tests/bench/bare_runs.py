"""
Limits of whole saves and restores: a loop with each call that they can't do without.

A save reads, looks for zero pages, digests, compresses, checksums and writes; a restore copies a
stream out of memory, checksums, decompresses, digests and writes. As workers do, each process keeps
freed memory, and takes the next packets when it is done with its last. Nothing is planned,
recorded, counted or given back.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from isal import isal_zlib

from snapmig.system.libc import keep_freed_memory
from snapmig.workers.worker import FREE_MEMORY, LARGEST_BUFFER
from tests.bench.codecs import PACKET, PAGE
from tests.bench.limits import Limit, Packets, Streams, data_mask, written
from tests.bench.parallel import ParallelTime

BATCH = 32
"""Packets that a process takes at once."""
DIGEST = 16
"""Bytes of a page's digest."""

Step = Callable[[int, int], None]
"""Does one packet, by its number and the descriptor of the output."""


def bare_runs(packets: Packets, streams: Iterable[Streams]) -> Iterator[Limit]:
    """Yield the limits of a save and of a restore by each codec."""
    for one in streams:
        run = _BareRun(packets, one)
        names = one.codec.whole_limits
        yield Limit(names["save"], "save", run.save, on_destination=True, codec=one.codec)
        yield Limit(names["restore"], "restore", run.restore, on_destination=True, codec=one.codec)


class _BareRun:
    def __init__(self, packets: Packets, streams: Streams) -> None:
        self._packets = packets
        self._streams = streams

    def save(self, jobs: int, folder: Path) -> ParallelTime:
        return _run(self._packets.in_extents(), jobs, folder / "limit.bin", self._saver)

    def restore(self, jobs: int, folder: Path) -> ParallelTime:
        return _run(self._packets.in_use(), jobs, folder / "limit.bin", self._restorer)

    def _saver(self) -> Step:
        image = os.open(self._packets.image, os.O_RDONLY)
        compress = self._streams.codec.compressor()
        buffer = bytearray(PACKET)
        pages = np.frombuffer(buffer, np.uint8).reshape(-1, PAGE)
        digests = self._packets.count * PACKET

        def save(k: int, output: int) -> None:
            os.preadv(image, [buffer], k * PACKET)
            mask = data_mask(pages)
            data = pages if mask.all() else pages[mask]
            if not len(data):
                return
            rows = np.zeros((len(pages), DIGEST), np.uint8)
            found = b"".join(map(xxhash.xxh3_128_digest, data))
            rows[mask] = np.frombuffer(found, np.uint8).reshape(-1, DIGEST)
            xxhash.xxh3_128_digest(data.data)
            stream = compress(data.data)
            stored = stream if len(stream) < data.nbytes else data.data
            isal_zlib.crc32(stored)
            os.pwrite(output, stored, k * PACKET)
            os.pwrite(output, rows.data, digests + k * rows.nbytes)

        return save

    def _restorer(self) -> Step:
        decompress = self._streams.codec.decompressor()
        runs = {k: self._packets.runs(k) for k in self._packets.in_use()}

        def restore(k: int, output: int) -> None:
            stream = self._streams.stream(k)
            stored = bytes(self._packets.data(k) if stream is None else stream)
            isal_zlib.crc32(stored)
            data = stored if stream is None else decompress(stored, self._packets.data_size(k))
            xxhash.xxh3_128_digest(data)
            view, at = memoryview(data), 0
            for offset, size in runs[k]:
                os.pwrite(output, view[at : at + size], offset)
                at += size

        return restore


def _run(
    packets: Sequence[int], jobs: int, path: Path, prepare: Callable[[], Step]
) -> ParallelTime:
    with path.open("wb") as file:
        file.truncate((max(packets, default=0) + 1) * PACKET)
    counter = multiprocessing.get_context("fork").Value("l", 0)

    def ready(_number: int) -> tuple[Step, int]:
        keep_freed_memory(LARGEST_BUFFER, FREE_MEMORY)
        return prepare(), os.open(path, os.O_WRONLY)

    def work(prepared: Any) -> None:
        step, output = prepared
        while True:
            with counter.get_lock():
                first = counter.value
                counter.value += BATCH
            if first >= len(packets):
                return
            for k in packets[first : first + BATCH]:
                step(k, output)

    return written(path, jobs, work, ready)
