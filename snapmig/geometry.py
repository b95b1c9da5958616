"""
Geometry of a guest's RAM: the place of each packet, computed without any file.

RAM blocks lie end to end in *RAM offsets*, in the order of the block table. A packet holds pages of
one block only, as a multifd packet does, so each block starts with a packet of its own and its last
packet may be short.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

__all__ = ("PAGE_SIZE", "Geometry", "PacketPlace", "RamBlock", "RamPiece", "block_problem")

PAGE_SIZE = 4096
"""Bytes in a page, the unit that is zero, stored or changed. Every x86 and most Arm guests."""

MAX_RAM_SIZE = 1 << 56
"""Upper bound in bytes for all blocks together, so that no sum of offsets leaves 64 bits. No guest
physical address is above it, either: Arm and RISC-V have up to 56 bits of them."""


@dataclass(frozen=True, slots=True)
class RamPiece:
    """
    A part of a RAM block at consecutive guest physical addresses.

    :param offset: bytes from the start of the block, a multiple of the page size
    :param size: bytes
    :param gpa: guest physical address of the first byte
    """

    offset: int
    size: int
    gpa: int


@dataclass(frozen=True, slots=True)
class RamBlock:
    """
    One contiguous piece of guest RAM.

    :param name: the hypervisor's name for it, for example ``pc.ram``; at most 255 bytes of UTF-8
    :param size: bytes; need not be a multiple of the page size
    :param pieces: its parts with known guest physical addresses, in any order
    :param page_size: bytes of the host's pages behind it (2 MiB for huge pages)
    """

    name: str
    size: int
    pieces: tuple[RamPiece, ...] = ()
    page_size: int = PAGE_SIZE

    @classmethod
    def at(
        cls, gpa: int, size: int, name: str | None = None, page_size: int = PAGE_SIZE
    ) -> RamBlock:
        """
        Return a block in one piece at a guest physical address.

        :param name: default: of the form ``ram@0x100000000``
        """
        pieces = (RamPiece(0, size, gpa),)
        return cls(f"ram@{gpa:#x}" if name is None else name, size, pieces, page_size)

    def by_address(self, start: int, stop: int) -> Iterator[tuple[int, int, int | None]]:
        """
        Cut a range of the block into parts with consecutive addresses.

        Yields offset, end and guest physical address: the lowest of several, None if unknown.
        """
        for piece in sorted(self.pieces, key=lambda piece: (piece.offset, piece.gpa)):
            first, end = max(start, piece.offset), min(stop, piece.offset + piece.size)
            if first < end:
                if start < first:
                    yield start, first, None
                yield first, end, piece.gpa + first - piece.offset
                start = end
        if start < stop:
            yield start, stop, None


class PacketPlace(NamedTuple):
    """The place of one packet: ``length`` bytes from ``ram_offset``, inside one block."""

    packet: int
    block: int
    ram_offset: int
    length: int

    @property
    def pages(self) -> int:
        """Number of pages; the last one may be cut short by the end of the block."""
        return -(-self.length // PAGE_SIZE)


class Geometry:
    """RAM blocks cut into packets of ``packet_size`` bytes."""

    def __init__(self, blocks: tuple[RamBlock, ...], packet_size: int) -> None:
        self.blocks = blocks
        self.packet_size = packet_size
        sizes = [block.size for block in blocks]
        counts = [-(-size // packet_size) for size in sizes]
        self._ram_starts = list(accumulate(sizes, initial=0))
        self._packet_starts = list(accumulate(counts, initial=0))

    @property
    def ram_size(self) -> int:
        """Bytes of all blocks together."""
        return self._ram_starts[-1]

    @property
    def packet_count(self) -> int:
        """Number of packets of all blocks together."""
        return self._packet_starts[-1]

    @property
    def packet_pages(self) -> int:
        """Pages in a full packet."""
        return self.packet_size // PAGE_SIZE

    def block_start(self, block: int) -> int:
        """Return the RAM offset of a block's first byte."""
        return self._ram_starts[block]

    def block_packets(self, block: int) -> range:
        """Return the numbers of a block's packets."""
        return range(self._packet_starts[block], self._packet_starts[block + 1])

    def place(self, packet: int) -> PacketPlace:
        """Return the place of packet number ``packet``."""
        block = bisect_right(self._packet_starts, packet) - 1
        inside = (packet - self._packet_starts[block]) * self.packet_size
        length = min(self.packet_size, self.blocks[block].size - inside)
        return PacketPlace(packet, block, self._ram_starts[block] + inside, length)

    def places(self, first: int, count: int) -> list[PacketPlace]:
        """Return the places of consecutive packets of one block."""
        start, last = self.place(first), self.place(first + count - 1)
        size = self.packet_size
        return [
            *(PacketPlace(first + at, start.block, start.ram_offset + at * size, size)
              for at in range(count - 1)),
            last,
        ]  # fmt: skip

    def ram_range(self, packets: range) -> range:
        """Return the RAM offsets of consecutive packets."""
        if not packets:
            return range(0)
        first, last = self.place(packets[0]), self.place(packets[-1])
        return range(first.ram_offset, last.ram_offset + last.length)

    def page_count(self, packets: range) -> int:
        """Return the number of pages in consecutive packets."""
        pages = 0
        for block in range(len(self.blocks)):
            inside = self.block_packets(block)
            part = range(max(inside.start, packets.start), min(inside.stop, packets.stop))
            if part:
                pages += (len(part) - 1) * self.packet_pages + self.place(part[-1]).pages
        return pages

    def packet_at(self, ram_offset: int) -> int:
        """Return the number of the packet with the byte at a RAM offset."""
        block = bisect_right(self._ram_starts, ram_offset) - 1
        inside = ram_offset - self._ram_starts[block]
        return self._packet_starts[block] + inside // self.packet_size


def block_problem(blocks: tuple[RamBlock, ...]) -> str | None:
    """Return why a list of RAM blocks can't be one guest's, or None if it can."""
    if not blocks:
        return "there is no RAM block"
    names = [block.name for block in blocks]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"two RAM blocks have the name {twice!r}"
    if sum(block.size for block in blocks) > MAX_RAM_SIZE:
        return f"the RAM blocks have more than {MAX_RAM_SIZE} bytes together"
    problem = next(filter(None, map(_single_problem, blocks)), None)
    return problem or _shared_address(blocks)


def _single_problem(block: RamBlock) -> str | None:
    if not 0 < len(block.name.encode()) <= 255 or "\0" in block.name:
        return f"RAM block name {block.name!r} is not 1 to 255 bytes long"
    if block.size <= 0:
        return f"RAM block {block.name!r} has {block.size} bytes"
    if block.page_size < PAGE_SIZE or block.page_size & (block.page_size - 1):
        return f"RAM block {block.name!r} has pages of {block.page_size} bytes"
    return next(filter(None, (_piece_problem(block, piece) for piece in block.pieces)), None)


def _piece_problem(block: RamBlock, piece: RamPiece) -> str | None:
    end = piece.offset + piece.size
    whole = piece.offset % PAGE_SIZE == 0 and (end == block.size or end % PAGE_SIZE == 0)
    if piece.size <= 0 or not 0 <= piece.offset < end <= block.size or not whole:
        return (
            f"RAM block {block.name!r} has {block.size} bytes and a piece of {piece.size} from "
            f"{piece.offset:#x} on, expected whole pages of it"
        )
    if not 0 <= piece.gpa <= MAX_RAM_SIZE - piece.size:
        return (
            f"RAM block {block.name!r} has {piece.size} bytes at the guest physical address "
            f"{piece.gpa:#x}, expected all below {MAX_RAM_SIZE:#x}"
        )
    return None


def _shared_address(blocks: tuple[RamBlock, ...]) -> str | None:
    ranges = sorted(
        (piece.gpa, piece.gpa + piece.size, block.name)
        for block in blocks
        for piece in block.pieces
    )
    for (_, stop, name), (start, _, other) in pairwise(ranges):
        if start < stop:
            return f"RAM blocks {name!r} and {other!r} have the address {start:#x} in common"
    return None
