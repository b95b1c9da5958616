"""``open``: a snapshot as randomly readable memory, without a restore."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from snapmig.attachments import Attachments
from snapmig.container.format import PageKind
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.images.spans import piece_spans
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.parse import parse_jobs
from snapmig.operations.runs.random_access import RandomAccess
from snapmig.operations.runs.search import find_all
from snapmig.pages import Bytes
from snapmig.sealing.keyring import Keys
from snapmig.units import format_count, format_size, parse_size

__all__ = ("Page", "PageSource", "Snapshot", "open_snapshot")

CACHE = "64M"
"""Decoded packets that a snapshot keeps: reading on page by page decodes each once."""

_RECORDS_AT_ONCE = 4096

PageSource = Literal["zero", "stored", "parent", "delta"]
"""Source of a page's contents: none, the snapshot, its parent, or a part from each."""

_SOURCES: dict[int, PageSource] = {
    PageKind.ZERO: "zero",
    PageKind.DATA: "stored",
    PageKind.SAME_AS_PARENT: "parent",
    PageKind.DELTA_AGAINST_PARENT: "delta",
}


class Page(NamedTuple):
    """
    A page of guest RAM.

    :param number: counts from the start of all blocks, or of the block asked for
    :param address: guest physical, None if not known
    :param content: read-only, 4096 of uint8, fewer for a block's short last page
    """

    number: int
    address: int | None
    source: PageSource
    content: Bytes


class Snapshot:
    """
    A read-only snapshot with random access, for any number of threads.

    :param path: a path, or ``s3://BUCKET/KEY``
    :param jobs: most packets decoded side by side, in threads; default: as many as processors
    :param cache: decoded packets to keep, such as ``"64M"``
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots
    :ivar attachments: contents by name, read and checked on access
    :raises CorruptSnapshotError: not a snapshot, or damaged in its tables
    :raises UnsupportedError: needs a feature unknown to this version
    :raises StoreError: object storage can't be reached, or refused a request
    :raises OSError: it can't be read
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        jobs: int | None = None,
        cache: int | str = CACHE,
        follow_remote_parents: bool = False,
        keys: Keys | None = None,
    ) -> None:
        self._jobs = parse_jobs(jobs)
        self._memory = RandomAccess(
            path,
            jobs=self._jobs,
            cache=parse_size(cache),
            follow_remote_parents=follow_remote_parents,
            keys=keys,
        )
        self._file = self._memory.file
        self._geometry = self._file.geometry
        self._spans = piece_spans(self.blocks)  # by address
        self._addresses = [span.offset for span in self._spans]
        self.attachments: Mapping[str, bytes] = Attachments(self._file)

    @property
    def blocks(self) -> tuple[RamBlock, ...]:
        """The RAM blocks, in the order of RAM offsets."""
        return self._geometry.blocks

    @property
    def length(self) -> int:
        """Size of all RAM blocks together in bytes."""
        return self._geometry.ram_size

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Guest physical addresses with RAM, as first and end, in order."""
        return tuple((span.offset, span.offset + span.stop - span.start) for span in self._spans)

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
        return self._memory.read(*self._part(offset, size, block))

    def array(self, offset: int, size: int, block: str | None = None) -> Bytes:
        """Return the same as a read-only array of uint8, without a copy if one packet has it."""
        pieces = list(self._memory.pieces(*self._part(offset, size, block)))
        found = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint8), *pieces])
        found.flags.writeable = False
        return found

    def read_at(self, address: int, size: int) -> bytes:
        """
        Return guest RAM by guest physical address.

        :raises UsageError: not all of these addresses have RAM
        :raises CorruptSnapshotError: a packet in this range is damaged
        """
        if size < 0:
            raise UsageError(f"size is {size}, expected none below 0")
        pieces, stop = [], address + size
        while address < stop:
            start, end = self._ram_at(address, stop)
            pieces.append(self._memory.read(start, end))
            address += end - start
        return b"".join(pieces)

    def address_of(self, offset: int, block: str | None = None) -> int | None:
        """
        Return the guest physical address of a byte, None if it is not known.

        :raises UsageError: no such byte or block
        """
        base, end = self._range(block)
        if not 0 <= offset < end - base:
            message = f"offset is {offset}, expected 0 to {end - base - 1}"
            raise UsageError(message, path=self._file.shown)
        start = base + offset
        for span in self._spans:
            if span.start <= start < span.stop:
                return span.offset + start - span.start
        return None

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
        return self.array(start - base, PAGE_SIZE, block)

    def pages(self, block: str | None = None, *, zeros: bool = True) -> Iterator[Page]:
        """
        Yield pages in order, each with the source of its contents.

        :param zeros: include pages of zeros
        :raises UsageError: no such block
        :raises CorruptSnapshotError: a packet is damaged
        """
        base, _ = self._range(block)
        number = 0
        for packet in self._packets(block):
            place = self._geometry.place(packet)
            stored = self._file.packet(place)
            start = place.ram_offset - base
            if not zeros and not stored.pages:
                number += place.pages
                continue
            content = self._memory.packets.packet(packet)
            for at, kind in enumerate(stored.kinds[: place.pages].tolist()):
                if zeros or kind:
                    page = content[at * PAGE_SIZE : (at + 1) * PAGE_SIZE]
                    address = self.address_of(start + at * PAGE_SIZE, block)
                    yield Page(number + at, address, _SOURCES[kind], page)
            number += place.pages

    def search(self, pattern: bytes, block: str | None = None) -> Iterator[int]:
        """
        Yield the offset of each place with some bytes, in order; packets are decoded in parallel.

        Matches may overlap, and lie in one RAM block each.

        :param block: offsets are from its start, else from the start of all blocks
        :raises UsageError: no such block, or a pattern that is empty, larger than a packet or
            of zeros only
        :raises CorruptSnapshotError: a packet is damaged
        """
        base, _ = self._range(block)
        found = find_all(self._memory, pattern, self._packets(block), self._jobs)
        return (offset - base for offset in found)

    def close(self) -> None:
        """Close the file."""
        self._memory.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _packets(self, block: str | None) -> range:
        if block is None:
            return range(self._geometry.packet_count)
        return self._geometry.block_packets([each.name for each in self.blocks].index(block))

    def _range(self, block: str | None) -> tuple[int, int]:
        if block is None:
            return 0, self.length
        for number, known in enumerate(self.blocks):
            if known.name == block:
                start = self._geometry.block_start(number)
                return start, start + known.size
        raise UsageError(f"has no RAM block {block!r}", path=self._file.shown)

    def _part(self, offset: int, size: int, block: str | None) -> tuple[int, int]:
        base, end = self._range(block)
        if offset < 0 or size < 0:
            raise UsageError(f"offset is {offset} and size {size}, expected neither below 0")
        return base + offset, min(base + offset + size, end)

    def _ram_at(self, address: int, stop: int) -> tuple[int, int]:
        # RAM offsets of as many of these addresses as follow each other in one piece.
        number = bisect_right(self._addresses, address) - 1
        if number >= 0:
            span = self._spans[number]
            start = span.start + address - span.offset
            if start < span.stop:
                return start, min(span.stop, start + stop - address)
        raise UsageError(f"has no RAM at the address {address:#x}", path=self._file.shown)


@checks_arguments
def open_snapshot(
    path: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    cache: int | str = CACHE,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
) -> Snapshot:
    """Open a snapshot for reading; see :class:`Snapshot`."""
    return Snapshot(
        path, jobs=jobs, cache=cache, follow_remote_parents=follow_remote_parents, keys=keys
    )
