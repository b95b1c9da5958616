"""
An object to read a snapshot from: few requests, several of them at once.

Small reads fetch blocks and cache them, so that neighbouring data takes one request. Data for
several processes stays in shared memory. Threads fetch announced ranges while others are decoded.
Every byte is of the version first opened.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

from snapmig.errors import StoreError
from snapmig.stores.location import ObjectUrl
from snapmig.stores.s3 import ObjectClient, settings
from snapmig.stores.source import Range, SourcePlan
from snapmig.stores.turns import Turns
from snapmig.system.files import descriptor_path, pread_all, pwrite_all

__all__ = ("ObjectSource", "joined")

BLOCK = 64 << 10
"""What a small read takes and remembers: the records of 512 packets, 256 MiB of RAM."""
BLOCKS = 32
TAIL = 4
"""Blocks at the end that are read together: tables are there, and the attachments before them."""
GAP = 256 << 10
"""Bytes between two ranges that are rather read than asked for apart: 2.5 ms at 100 MB/s, where a
request takes 10 to 50."""
THREADS = 16
"""Most requests at once: how many there are is decided by whoever announces ranges."""
LARGE = 256 << 30
"""An object whose index may be larger than is fit for memory: it is kept in a temporary file."""
AHEAD_BYTES = 64 << 20
"""Announced bytes that a process may have in memory."""


class ObjectSource:
    """
    An object of S3 storage as a source of bytes.

    :param plan: knowledge of another process about it, or only its name
    :raises StoreError: it can't be read
    """

    remote: ClassVar[bool] = True

    def __init__(self, url: ObjectUrl, plan: SourcePlan) -> None:
        self._url = url
        # A fork server, used when the caller has threads, has the environment of its own start.
        os.environ.update(plan.settings)
        self._client = ObjectClient(url)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._guard = threading.Lock()
        self._kept: list[Range] = list(plan.kept)
        self._kept_fd = -1
        if plan.kept:
            self._hold(os.open(plan.kept_path, os.O_RDONLY | os.O_CLOEXEC))
        self._pieces: list[_Piece] = []
        self._threads: ThreadPoolExecutor | None = None
        self._turns = Turns(THREADS)
        self._arrived: Callable[[int], None] | None = None
        if plan.version is not None:
            self.size, self._version = plan.size, plan.version
        else:
            found = self._client.start(BLOCK)
            self.size, self._version = found.size, found.version
            self._blocks[0] = found.start
        self._mine = not plan.kept
        self.disk_size = self.size

    @property
    def repeated_requests(self) -> int:
        """Number of requests with more than one attempt."""
        return self._client.repeated

    def read(self, offset: int, length: int) -> bytes:
        """
        Return bytes; fewer only at the end of the object.

        :raises StoreError: it was replaced meanwhile, or can't be read
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self._is_kept(offset, length):
            return pread_all(self._kept_fd, length, offset)
        piece = next((each for each in self._pieces if each.has(offset, length)), None)
        if piece is not None:
            return self._take(piece, offset, length)
        return self._small(offset, length) if length <= BLOCK else self._fetch(offset, length)

    def keep(self, offset: int, length: int) -> None:
        """
        Fetch a range into memory shared with other processes.

        :raises StoreError: it can't be read
        """
        if not self._is_kept(offset, length):
            self._own_memory()
            known = min(offset + length, len(self._blocks.get(0, b"")))
            start = max(offset, known)
            if known > offset:
                pwrite_all(self._kept_fd, self._blocks[0][offset:known], offset)
            if start < offset + length:
                self._fill(start, offset + length)
            self._kept.append((offset, length))

    def written(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Return the whole range: an object has no holes."""
        return iter([(start, stop)])

    def prefetch(self, ranges: Sequence[Range]) -> None:
        """Begin to fetch ranges for later reads, ranges near each other as one."""
        for offset, length, wanted in joined(ranges):
            if self._is_kept(offset, length) or any(
                each.has(offset, length) for each in self._pieces
            ):
                continue
            while sum(each.length for each in self._pieces) + length > AHEAD_BYTES and self._pieces:
                self._pieces.pop(0)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "snapmig-fetch")
            data = self._threads.submit(self._fetch_in_turn, offset, length)
            self._pieces.append(_Piece(offset, length, wanted, data))

    def limit_requests(self, count: int) -> None:
        """Fetch no more of the announced ranges at once, from now on."""
        self._turns.limit(count)

    def count_arrivals(self, add: Callable[[int], None]) -> None:
        """Tell a function of the announced bytes as they arrive, in any thread."""
        self._arrived = add

    def plan(self) -> SourcePlan:
        """Return everything needed by other processes, kept ranges included."""
        path = descriptor_path(self._kept_fd) if self._kept else ""
        return SourcePlan(
            str(self._url), self._version, self.size, path, tuple(self._kept), settings()
        )

    def close(self) -> None:
        """Release memory and threads."""
        self._turns.end()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        self._pieces.clear()
        self._blocks.clear()
        self._kept.clear()
        self._let_go()

    def _hold(self, fd: int) -> None:
        self._kept_fd = fd
        self._closing = weakref.finalize(self, os.close, fd)  # a worker's has no other end
        self._closing.atexit = False

    def _let_go(self) -> None:
        if self._kept_fd >= 0:
            self._closing()
            self._kept_fd = -1

    def _own_memory(self) -> None:
        # Ranges kept by another process are not ours to write to.
        if self._mine and self._kept_fd >= 0:
            return
        self._let_go()
        self._kept.clear()
        if self.size > LARGE:
            with tempfile.TemporaryFile(prefix="snapmig-") as file:
                self._hold(os.dup(file.fileno()))
        else:
            self._hold(os.memfd_create("snapmig-object", os.MFD_CLOEXEC))
        self._mine = True
        os.ftruncate(self._kept_fd, self.size)

    def _fill(self, start: int, stop: int) -> None:
        at = start

        def take(piece: bytes) -> None:
            nonlocal at
            pwrite_all(self._kept_fd, piece, at)
            at += len(piece)

        if start % BLOCK + stop - start <= BLOCK:  # may be cached, and its surroundings are wanted
            take(self._small(start, stop - start))
        else:
            self._client.stream(start, stop - start, self._version, take)

    def _is_kept(self, offset: int, length: int) -> bool:
        return any(
            start <= offset and offset + length <= start + size for start, size in self._kept
        )

    def _take(self, piece: _Piece, offset: int, length: int) -> bytes:
        try:
            data = piece.data.result()
        except StoreError:
            self._pieces.remove(piece)
            raise
        piece.wanted -= length
        if piece.wanted <= 0:
            self._pieces.remove(piece)
        return data[offset - piece.offset : offset - piece.offset + length]

    def _small(self, offset: int, length: int) -> bytes:
        numbers = range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
        with self._guard:  # threads of a mount read attachments side by side
            held = {number: self._blocks[number] for number in numbers if number in self._blocks}
        missing = [number for number in numbers if number not in held]
        if missing:
            last = (self.size - 1) // BLOCK
            if last - missing[0] < TAIL:
                missing = [n for n in range(max(0, last - TAIL + 1), last + 1) if n not in held]
            start = missing[0] * BLOCK
            data = self._fetch(start, min((missing[-1] + 1) * BLOCK, self.size) - start)
            for number in missing:
                held[number] = data[number * BLOCK - start : (number + 1) * BLOCK - start]
        with self._guard:
            self._blocks.update(held)
            for number in numbers:
                self._blocks.move_to_end(number)
            while len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        start = offset - numbers[0] * BLOCK
        return b"".join(held[number] for number in numbers)[start : start + length]

    def _fetch_in_turn(self, offset: int, length: int) -> bytes:
        with self._turns:
            return self._fetch(offset, length, self._arrived)

    def _fetch(
        self, offset: int, length: int, arrived: Callable[[int], None] | None = None
    ) -> bytes:
        pieces: list[bytes] = []

        def take(piece: bytes) -> None:
            pieces.append(piece)
            if arrived is not None:
                arrived(len(piece))

        self._client.stream(offset, length, self._version, take)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Piece:
    # An announced range: on its way, or here until all wanted bytes of it were read.
    def __init__(self, offset: int, length: int, wanted: int, data: Future[bytes]) -> None:
        self.offset = offset
        self.length = length
        self.wanted = wanted
        self.data = data

    def has(self, offset: int, length: int) -> bool:
        return self.offset <= offset and offset + length <= self.offset + self.length


def joined(ranges: Sequence[Range]) -> Iterator[tuple[int, int, int]]:
    """Yield ranges near each other as one: offset, length, and wanted bytes."""
    start = end = wanted = 0
    for offset, length in sorted(ranges):
        if wanted and offset - end > GAP:
            yield start, end - start, wanted
            wanted = 0
        if not wanted:
            start = end = offset
        end = max(end, offset + length)
        wanted += length
    if wanted:
        yield start, end - start, wanted
