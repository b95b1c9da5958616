"""Firecracker's description of a guest's memory: places in its address space, and in the RAM."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry

__all__ = ("Region", "Regions", "parse_regions")

_MOST = 1024
_LARGEST_PAGE = 1 << 30
_END = 1 << 64

_Number = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Address = Annotated[int, Meta(ge=0)]


class _Mapping(Struct):
    base_host_virt_addr: _Address
    size: _Number
    offset: _Number
    # Bytes, in both: the second is the name of older versions, and before those all were small.
    page_size: _Number | None = None
    page_size_kib: _Number | None = None


class Region(NamedTuple):
    """
    Memory at consecutive addresses of the other process.

    :ivar start: RAM offset of its first byte
    """

    address: int
    size: int
    start: int


class Regions:
    """
    All regions of a guest, in the order of RAM offsets.

    :ivar page_size: of the memory behind them
    """

    def __init__(self, items: Sequence[Region], page_size: int) -> None:
        self.items = tuple(sorted(items, key=lambda item: item.start))
        self.page_size = page_size
        self._by_address = sorted(self.items)
        self._addresses = [item.address for item in self._by_address]
        self._starts = [item.start for item in self.items]

    def at_address(self, address: int) -> Region | None:
        """Return the region with an address, None if there is none."""
        number = bisect_right(self._addresses, address) - 1
        if number < 0:
            return None
        found = self._by_address[number]
        return found if address < found.address + found.size else None

    def at_offset(self, start: int) -> Region:
        """Return the region with a RAM offset below the end."""
        return self.items[bisect_right(self._starts, start) - 1]


def parse_regions(raw: bytes, geometry: Geometry) -> Regions:
    """
    Return the regions of a message, checked against the snapshot that is to fill them.

    :raises SnapmigError: no list of regions in JSON, impossible ones, or those of another guest
    """
    try:
        mappings = msgspec.json.decode(raw, type=list[_Mapping])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapmigError(f"not a list of memory regions: {error}") from error
    if not 0 < len(mappings) <= _MOST:
        raise SnapmigError(f"{len(mappings)} memory regions, expected 1 to {_MOST}")
    sizes = {each.page_size or each.page_size_kib or PAGE_SIZE for each in mappings}
    page_size = sizes.pop()
    if sizes:
        raise SnapmigError("memory regions have pages of different sizes")
    if page_size & (page_size - 1) or not mmap.PAGESIZE <= page_size <= _LARGEST_PAGE:
        raise SnapmigError(f"memory regions have pages of {page_size} bytes")
    items = [Region(each.base_host_virt_addr, each.size, each.offset) for each in mappings]
    for item in items:
        if item.size <= 0 or item.address % page_size or item.size % page_size:
            words = f"{item.size:#x} bytes at {item.address:#x}"
            raise SnapmigError(f"memory region of {words}, expected whole pages of {page_size}")
        if item.address + item.size >= _END:
            raise SnapmigError(f"memory region at {item.address:#x} leaves the address space")
    regions = Regions(items, page_size)
    _check_places(regions, geometry)
    return regions


def _check_places(regions: Regions, geometry: Geometry) -> None:
    for before, after in pairwise(sorted(regions.items)):
        if before.address + before.size > after.address:
            raise SnapmigError(f"two memory regions have the address {after.address:#x}")
    end = 0
    for item in regions.items:
        if item.start != end:
            message = f"memory region at offset {item.start:#x} of the RAM, expected {end:#x}"
            raise SnapmigError(message)
        end += item.size
    if end != geometry.ram_size:
        message = f"memory regions have {end} bytes, the snapshot's RAM {geometry.ram_size}"
        raise SnapmigError(message)
