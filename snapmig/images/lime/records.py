"""
The headers of LiME and AVML dumps, and the RAM that they describe.

See LiME's doc/README.md, and AVML's src/image.rs. A record has a header of 32 bytes, little-endian:
magic, version, first and last address, zeros. Then come the bytes, plain with LiME, as a stream of
snappy frames with AVML.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import MAX_RAM_SIZE, RamBlock
from snapmig.images.file import ImageFile

__all__ = ("HEADER_SIZE", "STEP", "Kind", "Record", "pack_header", "place_records", "read_header")

HEADER_SIZE = 32
_HEADER = "<4sIQQQ"
STEP = 16 << 20
"""Bytes of AVML's records, except for the last one of a range; one of zeros is left out."""
_MAX_FILLED = 1 << 40
"""Bytes left out as zeros in all."""
_MAX_RANGES = 4096


class Kind(NamedTuple):
    """The mark in a format's headers, and its name for people."""

    name: str
    magic: bytes
    version: int


class Record(NamedTuple):
    """
    A range of physical addresses, and its place in the file.

    :param stop: the address after the last one
    :param offset: of its bytes, after the header
    """

    start: int
    stop: int
    offset: int


def read_header(file: ImageFile, at: int, kind: Kind) -> Record:
    """
    Return the record at an offset.

    :raises SnapmigError: cut short, or an impossible field
    :raises UnsupportedError: a record of another kind
    """
    magic, version, start, last, rest = struct.unpack(_HEADER, file.read(at, HEADER_SIZE))
    if magic != kind.magic or rest:
        message = f"expected the header of a record of {kind.name}"
        raise SnapmigError(message, path=file.shown, offset=at)
    if version != kind.version:
        message = f"record is of version {version} of {kind.name}, expected {kind.version}"
        raise UnsupportedError(message, path=file.shown, offset=at)
    if not start <= last < MAX_RAM_SIZE:
        message = f"record has the addresses {start:#x} to {last:#x}, expected them below 2^56"
        raise SnapmigError(message, path=file.shown, offset=at)
    return Record(start, last + 1, at + HEADER_SIZE)


def pack_header(kind: Kind, start: int, size: int) -> bytes:
    """Return the header of a record."""
    return struct.pack(_HEADER, kind.magic, kind.version, start, start + size - 1, 0)


def place_records(
    records: Iterable[Record], file: ImageFile
) -> tuple[tuple[RamBlock, ...], list[tuple[int, Record]]]:
    """
    Return the RAM blocks of a dump, and its records in order, each with its RAM offset.

    A block is a range of addresses without a gap. AVML leaves out records of zeros: a gap of whole
    steps of its records after one of that size is RAM, and any other gap is not.

    :raises SnapmigError: records overlap, or there are too many ranges
    """
    ordered = sorted(records)
    for one, other in pairwise(ordered):
        if one.stop > other.start:
            message = f"two records have the address {other.start:#x}"
            raise SnapmigError(message, path=file.shown)
    ranges: list[list[int]] = []
    placed: list[tuple[int, Record]] = []
    filled = ram = 0
    for record in ordered:
        gap = record.start - ranges[-1][1] if ranges else 0
        if ranges and (gap == 0 or _is_zeros(gap, placed[-1][1])):
            filled += gap
            ram += gap
            ranges[-1][1] = record.stop
        else:
            ranges.append([record.start, record.stop])
        placed.append((ram, record))
        ram += record.stop - record.start
    _check(ranges, filled, file)
    return tuple(RamBlock.at(start, stop - start) for start, stop in ranges), placed


def _is_zeros(gap: int, before: Record) -> bool:
    return gap % STEP == 0 and before.stop - before.start == STEP


def _check(ranges: Sequence[Sequence[int]], filled: int, file: ImageFile) -> None:
    if len(ranges) > _MAX_RANGES:
        message = f"{len(ranges)} ranges of RAM, expected at most {_MAX_RANGES}"
        raise SnapmigError(message, path=file.shown)
    if filled > _MAX_FILLED:
        message = f"{filled} bytes of RAM are left out as zeros, expected at most {_MAX_FILLED}"
        raise SnapmigError(message, path=file.shown)
