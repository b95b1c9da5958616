"""A made-up guest's RAM, the pages sent of it in each round, and its contents in the end."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tests.support.multifd.wire import PAGE, PAGES

Fill = int | bytes
"""A page's contents, or a number for made-up ones; 0 is a page of zeros."""
Page = tuple[int, Fill]
"""A page's number in its block, and its contents."""


@functools.lru_cache(maxsize=4096)
def contents(fill: Fill) -> bytes:
    """Return a page: zeros for 0, noise for each third number, else repeated words."""
    if isinstance(fill, bytes):
        return fill
    if fill == 0:
        return bytes(PAGE)
    if fill % 3 == 0:
        return np.random.default_rng(fill).integers(0, 256, PAGE, np.uint8).tobytes()
    return np.full(PAGE // 8, fill * 0x9E3779B97F4A7C15 & (1 << 64) - 1, np.uint64).tobytes()


@dataclass(frozen=True)
class Block:
    """A RAM block; its size is a number of pages."""

    name: bytes
    pages: int

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.pages * PAGE


@dataclass(frozen=True)
class Packet:
    """
    Pages of one block sent together.

    :param block: the block's place in the list
    :param zeros_as_data: send zero pages like others, as without detection of zero pages
    """

    channel: int
    block: int
    pages: tuple[Page, ...]
    zeros_as_data: bool = False


Round = tuple[Packet, ...]
"""Packets between two barriers; a page is in one of them at most."""


@dataclass(frozen=True)
class Plan:
    """A migration: the blocks, the number of channels, and the rounds."""

    blocks: tuple[Block, ...]
    channels: int
    rounds: tuple[Round, ...]

    def expected(self) -> dict[str, bytes]:
        """Return each block's contents after the last round."""
        ram = {block.name: bytearray(block.size) for block in self.blocks}
        for packet in (packet for packets in self.rounds for packet in packets):
            block = ram[self.blocks[packet.block].name]
            for number, fill in packet.pages:
                block[number * PAGE : (number + 1) * PAGE] = contents(fill)
        return {name.decode(): bytes(block) for name, block in ram.items()}

    @property
    def all_ram(self) -> bytes:
        """All blocks, one after the other."""
        return b"".join(self.expected().values())

    def on(self, channels: int) -> Plan:
        """Return the plan with its packets dealt to another number of channels."""
        numbers = iter(range(sum(map(len, self.rounds))))
        rounds = tuple(
            tuple(replace(packet, channel=next(numbers) % channels) for packet in packets)
            for packets in self.rounds
        )
        return replace(self, channels=channels, rounds=rounds)


def grouped(
    block: int, pages: Iterable[Page], channels: int = 1, first: int = 0
) -> Iterator[Packet]:
    """
    Yield packets as QEMU fills them: up to 128 pages of one block, in order.

    :param first: the channel of the first packet
    """
    listed = list(pages)
    for number, start in enumerate(range(0, len(listed), PAGES)):
        part = tuple(listed[start : start + PAGES])
        yield Packet((first + number) % channels, block, part)


def whole(blocks: Sequence[Block], channels: int, seed: int = 1) -> Round:
    """Return a round with every page of all blocks, some of them zero."""
    draw = np.random.default_rng(seed)
    packets: list[Packet] = []
    for index, block in enumerate(blocks):
        fills = draw.integers(1, 1 << 20, block.pages)
        fills[draw.random(block.pages) < 0.3] = 0
        found = grouped(index, enumerate(fills.tolist()), channels, len(packets))
        packets += found
    return tuple(packets)


def some(blocks: Sequence[Block], channels: int, seed: int, share: float = 0.2) -> Round:
    """Return a round with a share of all pages, as a guest at work writes them."""
    draw = np.random.default_rng(seed)
    packets: list[Packet] = []
    for index, block in enumerate(blocks):
        numbers = np.flatnonzero(draw.random(block.pages) < share).tolist()
        fills = (
            draw.integers(1, 1 << 20, len(numbers)) * (draw.random(len(numbers)) > 0.3)
        ).tolist()
        packets += grouped(index, zip(numbers, fills, strict=True), channels, len(packets))
    return tuple(packets)


def real(ram: dict[str, bytes], channels: int) -> Plan:
    """
    Return a plan for the RAM of a real guest, which takes three rounds.

    The first has wrong contents for one page in three, the second for one in seven, zero pages
    among them, and the last mends all of these.
    """
    blocks = [Block(name.encode(), len(content) // PAGE) for name, content in ram.items()]
    packets: list[list[Packet]] = [[], [], []]
    for index, content in enumerate(ram.values()):
        true: list[Fill] = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
        pages = [(at, fill if fill != bytes(PAGE) else 0) for at, fill in enumerate(true)]
        sent = (
            [(at, fill if at % 3 else 1 + at % 4) for at, fill in pages],
            [(at, 0 if at % 2 else 5) for at, _ in pages if at % 7 == 0],
            [(at, fill) for at, fill in pages if at % 3 == 0 or at % 7 == 0],
        )
        for made, some_pages in zip(packets, sent, strict=True):
            made += grouped(index, some_pages, channels, len(made))
    return Plan(tuple(blocks), channels, tuple(map(tuple, packets)))


BLOCKS = (Block(b"pc.ram", 700), Block(b"0000:00:02.0/vga.vram", 130), Block(b"pc.bios", 3))


def usual(channels: int = 2, rounds: int = 3, blocks: tuple[Block, ...] = BLOCKS) -> Plan:
    """Return a plan of a guest at work: all pages, then those written meanwhile."""
    later = [some(blocks, channels, seed) for seed in range(2, rounds + 1)]
    return Plan(blocks, channels, (whole(blocks, channels), *later))
