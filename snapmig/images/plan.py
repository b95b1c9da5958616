"""
How a snapshot becomes an image of some format: where its blocks go, and what stands besides.

A format says this from the snapshot's RAM blocks and attachments; the workers put the pages there,
the parent the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from snapmig.geometry import PAGE_SIZE, PacketPlace, RamBlock
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask, runs

__all__ = ("Content", "ImagePlan", "Placer", "block_starts")


class Content(NamedTuple):
    """
    What a format may know of a snapshot.

    :param format: the format that it was saved from
    :param packet_pages: pages in a packet
    :param domain_xml: libvirt's definition of the guest, where it is not in ``attachments``
    :param data_pages: gives one truth value a page of a block, packet by packet in pieces; a
        block's last packet is filled up with false
    """

    blocks: tuple[RamBlock, ...]
    attachments: Mapping[str, bytes]
    format: str
    packet_pages: int
    data_pages: Callable[[int], Iterator[Mask]]
    domain_xml: bytes | None = None

    @property
    def ram_size(self) -> int:
        """Bytes of all blocks together."""
        return sum(block.size for block in self.blocks)


class Placer:
    """
    Puts packets into a file in which each RAM block lies in one piece.

    :param block_offsets: where in the file each block starts
    :param ram_starts: the RAM offset of each block
    """

    def __init__(self, block_offsets: Sequence[int], ram_starts: Sequence[int]) -> None:
        self._shifts = [
            offset - start for offset, start in zip(block_offsets, ram_starts, strict=True)
        ]

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Write a packet's data pages, ``(n, 4096)`` in order, where ``mask`` says."""
        offset = place.ram_offset + self._shifts[place.block]
        done = 0
        for first, count in runs(mask):
            content = data[done : done + count].reshape(-1)
            # The last page may be cut short by the end of its block.
            store.write(offset + first * PAGE_SIZE, content[: place.length - first * PAGE_SIZE])
            done += count

    def zero(self, store: Store, place: PacketPlace, mask: Mask) -> None:
        """Make zero what ``mask`` says is not data, in a file that held something before."""
        offset = place.ram_offset + self._shifts[place.block]
        for first, count in runs(~mask):
            start = first * PAGE_SIZE
            store.zero(offset + start, min(count * PAGE_SIZE, place.length - start))


class ImagePlan(NamedTuple):
    """
    Where everything goes in a new image.

    :param size: length of the file in bytes
    :param block_offsets: where each RAM block starts in the file
    :param pieces: other bytes, with their offsets
    :param placer: places packets where blocks do not lie in one piece
    :param member: where the image is a new directory, the name of the file in it with the pages
    :param companions: other files of the image with their contents: in that directory by name,
        else beside the file by what is added to its name
    """

    size: int
    block_offsets: tuple[int, ...]
    pieces: Sequence[tuple[int, bytes]] = ()
    placer: Placer | None = None
    member: str | None = None
    companions: Mapping[str, bytes] = {}


def block_starts(blocks: Sequence[RamBlock]) -> tuple[int, ...]:
    """Return where blocks start that stand end to end."""
    return tuple(accumulate((block.size for block in blocks), initial=0))[: len(blocks)]
