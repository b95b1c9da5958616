"""
Pages of a classic migration stream: address and flags, then the page or a zero byte.

The first page of each run of pages from one block names the block.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE, PacketPlace
from snapmig.images.plan import Content, Placer, block_starts
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask

__all__ = ("StreamPlacer", "place_packets", "zero_page")

RAM_ZERO = 0x02
RAM_PAGE = 0x08
RAM_CONTINUE = 0x20
"""The page is in the same block as the one before."""

STRIDE = 8 + PAGE_SIZE
"""Bytes from a page to the next one of the same block."""
ZERO_STRIDE = 9


@dataclass(frozen=True)
class StreamPlacer(Placer):
    """
    Puts packets into a stream, with pages one after the other.

    :param offsets: of each packet's first page record in the file
    :param names: packets whose first page names its RAM block, with the name as in the stream
    """

    offsets: npt.NDArray[np.int64]
    names: dict[int, bytes]
    ram_starts: tuple[int, ...]
    needs_all: ClassVar[bool] = True

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Write a packet's data pages, each after its address."""
        inside = place.ram_offset - self.ram_starts[place.block]
        addresses = inside + np.flatnonzero(mask).astype(np.uint64) * np.uint64(PAGE_SIZE)
        records = np.empty((len(data), STRIDE), np.uint8)
        words = addresses | np.uint64(RAM_PAGE | RAM_CONTINUE)
        records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
        records[:, 8:] = data
        content = records.reshape(-1)
        name = self.names.get(place.packet)
        if name is not None:
            first = struct.pack(">Q", int(addresses[0]) | RAM_PAGE) + name
            content = np.concatenate([np.frombuffer(first, np.uint8), content[8:]])
        store.write(int(self.offsets[place.packet]), content)


def place_packets(content: Content, at: int) -> tuple[StreamPlacer, int]:
    """Return the places of the records of all packets from an offset on, and their end."""
    names = {}
    packet = 0
    counts = [_data_pages(content, number) for number in range(len(content.blocks))]
    for block, pages in zip(content.blocks, counts, strict=True):
        if pages.any():
            names[packet + int(np.flatnonzero(pages)[0])] = _pack_name(block.name)
        packet += len(pages)
    sizes = np.concatenate(counts) * STRIDE
    for number, name in names.items():
        sizes[number] += len(name)
    ends = at + np.cumsum(sizes)
    return StreamPlacer(ends - sizes, names, block_starts(content.blocks)), int(ends[-1])


def zero_page(block: str) -> bytes:
    """Return the record of a zero page at a block's start."""
    return struct.pack(">Q", RAM_ZERO) + _pack_name(block) + b"\0"


def _data_pages(content: Content, number: int) -> npt.NDArray[np.int64]:
    # Number of data pages in each packet of a block.
    return np.concatenate(
        [
            mask.reshape(-1, content.packet_pages).sum(axis=1, dtype=np.int64)
            for mask in content.data_pages(number)
        ]
    )


def _pack_name(name: str) -> bytes:
    raw = name.encode()
    return bytes([len(raw)]) + raw
