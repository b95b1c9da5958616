"""
The plan of an image to be written: places of RAM blocks, other bytes, companion files.

A format makes it from the snapshot's RAM blocks and attachments; the workers write the pages, the
parent the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from itertools import accumulate
from typing import ClassVar, NamedTuple

import numpy as np

from snapmig.architectures import Architecture
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, PacketPlace, RamBlock
from snapmig.images.target import Store
from snapmig.pages import Bytes, Mask, runs

__all__ = ("Content", "ImagePlan", "Later", "Placer", "block_starts", "warn_of_missing")

_NAMED = 10
"""Most blocks named in a message."""


class Content(NamedTuple):
    """
    The contents of a snapshot, as far as a format needs them.

    :param architecture: the guest's processors, None if not known
    :param packet_pages: pages in a packet
    :param domain_xml: libvirt's definition of the guest, unless in ``attachments``
    :param kernel_note: looks for the text of the kernel's VMCOREINFO in the RAM, for dumps
    :param data_pages: returns one truth value per page of a block, packet by packet in pieces; a
        block's last packet is padded with false
    """

    blocks: tuple[RamBlock, ...]
    attachments: Mapping[str, bytes]
    packet_pages: int
    data_pages: Callable[[int], Iterator[Mask]]
    architecture: Architecture | None = None
    domain_xml: bytes | None = None
    kernel_note: Callable[[], bytes | None] = lambda: None

    @property
    def ram_size(self) -> int:
        """Bytes of all blocks together."""
        return sum(block.size for block in self.blocks)


class Placer:
    """
    Puts packets into a file with each RAM block in one piece.

    :param block_offsets: start of each block in the file
    :param ram_starts: the RAM offset of each block
    """

    needs_all: ClassVar[bool] = False
    """True if a page not known must be written as zeros, because a hole means something else."""
    lists_pages: ClassVar[bool] = False
    """True if zero pages must be told of, too, and the others are put at the file's end."""
    measured: ClassVar[bool] = False
    """True if all packets are written twice: to find their places, and after :meth:`settle`."""

    def __init__(self, block_offsets: Sequence[int], ram_starts: Sequence[int]) -> None:
        self._shifts = [
            offset - start for offset, start in zip(block_offsets, ram_starts, strict=True)
        ]

    def write(self, store: Store, place: PacketPlace, mask: Mask, data: Bytes) -> None:
        """Write a packet's data pages, ``(n, 4096)`` in order, to their places by ``mask``."""
        offset = place.ram_offset + self._shifts[place.block]
        done = 0
        for first, count in runs(mask):
            content = data[done : done + count].reshape(-1)
            # The last page may be cut short by the end of its block.
            store.write(offset + first * PAGE_SIZE, content[: place.length - first * PAGE_SIZE])
            done += count

    def settle(self) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """Give all packets their places; return the file's size and its other bytes by offset."""
        raise NotImplementedError

    def read(self, store: Store, place: PacketPlace, mask: Mask) -> Bytes:
        """Return what the file has in the places of a packet's data pages."""
        offset = place.ram_offset + self._shifts[place.block]
        data = np.zeros((np.count_nonzero(mask), PAGE_SIZE), np.uint8)
        done = 0
        for first, count in runs(mask):
            content = data[done : done + count].reshape(-1)
            store.read(offset + first * PAGE_SIZE, content[: place.length - first * PAGE_SIZE])
            done += count
        return data

    def zero(self, store: Store, place: PacketPlace, mask: Mask) -> None:
        """Make the pages outside ``mask`` zero, in a file with older contents."""
        offset = place.ram_offset + self._shifts[place.block]
        for first, count in runs(~mask):
            start = first * PAGE_SIZE
            store.zero(offset + start, min(count * PAGE_SIZE, place.length - start))


class Later(Sized):
    """
    Bytes of an image that are made when a part of them is needed.

    :param make: returns all of them
    """

    def __init__(self, size: int, make: Callable[[], bytes]) -> None:
        self._size = size
        self._make = make
        self._made: bytes | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        if self._made is None:
            self._made = self._make()
        return self._made[part]


class ImagePlan(NamedTuple):
    """
    The layout of a new image.

    :param size: length of the file in bytes
    :param block_offsets: start of each RAM block in the file
    :param pieces: other bytes, with their offsets
    :param placer: places packets, if blocks are not in one piece
    :param member: if the image is a new directory, the name of its file with the pages
    :param companions: other files of the image with their contents: by name in that directory, else
        beside the file, by the suffix to its name
    :param warnings: remarks for the user, a sentence each
    """

    size: int
    block_offsets: tuple[int, ...]
    pieces: Sequence[tuple[int, bytes | Later]] = ()
    placer: Placer | None = None
    member: str | None = None
    companions: Mapping[str, bytes] = {}
    warnings: Sequence[str] = ()


def block_starts(blocks: Sequence[RamBlock]) -> tuple[int, ...]:
    """Return the offsets of blocks laid end to end."""
    return tuple(accumulate((block.size for block in blocks), initial=0))[: len(blocks)]


def warn_of_missing(blocks: Sequence[RamBlock], name: str) -> tuple[str, ...]:
    """
    Return a warning about blocks without a place in an image by addresses.

    :param name: of the format, for the message
    :raises UsageError: no block has a place
    """
    missing = [repr(block.name) for block in blocks if not block.pieces]
    if len(missing) == len(blocks):
        message = (
            f"{name} needs guest physical addresses, and none is known of RAM block "
            f"{', '.join(missing[:_NAMED])}: --address BLOCK=GPA gives one"
        )
        raise UsageError(message)
    if not missing:
        return ()
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"RAM blocks without a known guest physical address are left out: "
        f"{', '.join(missing[:_NAMED])}{more}",
    )
