"""``open``: a snapshot as randomly readable memory, without a restore."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from snapmig.attachments import Attachments
from snapmig.chains.lookup import open_parents
from snapmig.chains.reader import ChainReader
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.operations.options.arguments import checks_arguments
from snapmig.pages import Bytes
from snapmig.units import format_count, format_size

__all__ = ("Snapshot", "open_snapshot")

CACHED_BYTES = 16 << 20
"""Decoded packets that a snapshot keeps, in bytes: reading on page by page decodes each once."""


class Snapshot:
    """
    A read-only snapshot with random access; for one thread at a time.

    :param path: a path, or ``s3://BUCKET/KEY``
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :ivar attachments: contents by name, read and checked on access
    :raises CorruptSnapshotError: not a snapshot, or damaged in its tables
    :raises UnsupportedError: needs a feature unknown to this version
    :raises StoreError: object storage can't be reached, or refused a request
    :raises OSError: it can't be read
    """

    def __init__(
        self, path: str | os.PathLike[str], *, follow_remote_parents: bool = False
    ) -> None:
        self._file = SnapshotFile(os.fspath(path))
        with ExitStack() as stack:
            stack.callback(self._file.close)
            chain = open_parents(self._file, stack, follow_remote=follow_remote_parents)
            settings = [ReadSettings(file.superblock.window_bits) for file in chain]
            self._chain = ChainReader(chain, settings)
            self._stack = stack.pop_all()
        self._geometry = self._file.geometry
        self._decoded: OrderedDict[int, Bytes] = OrderedDict()
        self.attachments: Mapping[str, bytes] = Attachments(self._file)

    @property
    def blocks(self) -> tuple[RamBlock, ...]:
        """The RAM blocks, in the order of RAM offsets."""
        return self._geometry.blocks

    @property
    def length(self) -> int:
        """Size of all RAM blocks together in bytes."""
        return self._geometry.ram_size

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        blocks = format_count(len(self.blocks), "block")
        return f"<{type(self).__name__} {self._file.shown!r}: {format_size(self.length)}, {blocks}>"

    def read(self, offset: int, size: int, block: str | None = None) -> bytes:
        """
        Return guest RAM; fewer than ``size`` bytes only at its end.

        :param offset: bytes from the start of all blocks, or of ``block``
        :raises UsageError: a negative offset or size, or no such block
        :raises CorruptSnapshotError: a packet in this range is damaged
        """
        base, end = self._range(block)
        if offset < 0 or size < 0:
            raise UsageError(f"offset is {offset} and size {size}, expected neither below 0")
        start = base + offset
        stop = min(start + size, end)
        pieces = []
        while start < stop:
            place = self._geometry.place(self._geometry.packet_at(start))
            inside = start - place.ram_offset
            content = self._packet(place.packet)[inside : min(place.length, inside + stop - start)]
            pieces.append(content.tobytes())
            start += content.size
        return b"".join(pieces)

    def page(self, number: int, block: str | None = None) -> Bytes:
        """
        Return a page as a read-only array: 4096 of uint8, fewer for a block's short last page.

        :param number: counts from the start of all blocks, or of ``block``
        :raises UsageError: no such page or block
        :raises CorruptSnapshotError: the page's packet is damaged
        """
        base, end = self._range(block)
        start = base + number * PAGE_SIZE
        if not base <= start < end:
            message = f"page is {number}, expected 0 to {(end - base - 1) // PAGE_SIZE}"
            raise UsageError(message, path=self._file.shown)
        return np.frombuffer(self.read(start - base, PAGE_SIZE, block), np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._decoded.clear()
        self._stack.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _range(self, block: str | None) -> tuple[int, int]:
        if block is None:
            return 0, self.length
        for number, known in enumerate(self.blocks):
            if known.name == block:
                start = self._geometry.block_start(number)
                return start, start + known.size
        raise UsageError(f"has no RAM block {block!r}", path=self._file.shown)

    def _packet(self, packet: int) -> Bytes:
        # A whole packet, with its zero pages; the caller cuts it at the block's end.
        if packet in self._decoded:
            self._decoded.move_to_end(packet)
            return self._decoded[packet]
        place = self._geometry.place(packet)
        stored = self._file.packet(place)
        pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
        if stored.kinds.any():
            pages[stored.in_use[: place.pages]] = self._chain.load(stored)
        content = pages.reshape(-1)
        self._decoded[packet] = content
        while len(self._decoded) > max(1, CACHED_BYTES // self._geometry.packet_size):
            self._decoded.popitem(last=False)
        return content


@checks_arguments
def open_snapshot(path: str | os.PathLike[str], *, follow_remote_parents: bool = False) -> Snapshot:
    """Open a snapshot for reading; see :class:`Snapshot`."""
    return Snapshot(path, follow_remote_parents=follow_remote_parents)
