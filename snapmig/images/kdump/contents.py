"""
The bytes of a dump, plain or flattened.

A flattened dump was written to a pipe: its file has records in any order, each with its place in
the dump. All of them are listed first, checked, and the list is shared with workers.
"""

from __future__ import annotations

import os
import struct
from array import array
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.errors import ImageChangedError, SnapmigError
from snapmig.geometry import MAX_RAM_SIZE
from snapmig.images.file import ImageFile
from snapmig.images.kdump.shared import SharedArray, open_array
from snapmig.system.files import pread_all

__all__ = (
    "FLAT_MAGIC",
    "DumpContents",
    "SharedDump",
    "open_contents",
    "open_shared",
    "share_records",
)

FLAT_MAGIC = b"makedumpfile\0\0\0\0"
MAX_RECORDS = 1 << 24
"""QEMU writes records of up to 16 KiB: 256 GiB of compressed pages."""
MAX_OVERLAPS = 1 << 12

_HEADER_SIZE = 4096
_RECORD = struct.Struct(">2q")
_END = (-1, -1)

Records = npt.NDArray[np.int64]
"""Three rows, in the order of the first: places in the dump, lengths, offsets in the file."""


class DumpContents:
    """
    An open dump.

    :param records: of a flattened one
    """

    def __init__(self, fd: int, size: int, shown: str, records: Records | None = None) -> None:
        self._fd = fd
        self.size = size
        self.shown = shown
        self.records = records

    def read(self, offset: int, length: int) -> bytes:
        """
        Return bytes from an offset; those in no record of a flattened dump are zero.

        :raises SnapmigError: the dump ends before them
        """
        if offset + length > self.size:
            message = f"dump ends at {self.size:#x}, expected {length} bytes from here"
            raise SnapmigError(message, path=self.shown, offset=offset)
        if self.records is None:
            return self._read(offset, length)
        found = bytearray(length)
        starts, sizes, places = self.records
        number = max(0, int(np.searchsorted(starts, offset, "right")) - 1)
        while number < len(starts) and (start := int(starts[number])) < offset + length:
            low, high = max(offset, start), min(offset + length, start + int(sizes[number]))
            if low < high:
                content = self._read(int(places[number]) + low - start, high - low)
                found[low - offset : high - offset] = content
            number += 1
        return bytes(found)

    def _read(self, offset: int, length: int) -> bytes:
        found = pread_all(self._fd, length, offset)
        if len(found) < length:
            raise ImageChangedError("dump was cut while it was read", path=self.shown)
        return found


class SharedDump(NamedTuple):
    """
    Parameters of a dump for a worker, picklable.

    :param path: opens the file
    :param records_path: opens the records of a flattened dump
    """

    path: str
    size: int
    shown: str
    records_path: str | None


def open_contents(file: ImageFile) -> DumpContents:
    """
    Open a dump in the parent.

    :raises SnapmigError: a flattened one is cut short, or has an impossible record
    """
    if file.read(0, min(16, file.size)) != FLAT_MAGIC:
        return DumpContents(file.fd, file.size, file.shown)
    records = _list_records(file)
    size = int((records[0] + records[1]).max(initial=0))
    return DumpContents(file.fd, size, file.shown, records)


def share_records(contents: DumpContents) -> SharedArray | None:
    """Return a flattened dump's records for workers."""
    if contents.records is None:
        return None
    shared = SharedArray(contents.records.size, np.int64)
    shared.array[:] = contents.records.reshape(-1)
    return shared


def open_shared(plan: SharedDump) -> DumpContents:
    """Open a dump in a worker."""
    fd = os.open(plan.path, os.O_RDONLY | os.O_CLOEXEC)
    records = None
    if plan.records_path is not None:
        records = open_array(plan.records_path, np.int64).reshape(3, -1)
    return DumpContents(fd, plan.size, plan.shown, records)


def _list_records(file: ImageFile) -> Records:
    if file.read(16, 16) != _RECORD.pack(1, 1):
        message = "header of a flattened dump has another type or version, expected 1 and 1"
        raise SnapmigError(message, path=file.shown)
    found, at = array("q"), _HEADER_SIZE
    while (record := _RECORD.unpack(file.read(at, _RECORD.size))) != _END:
        start, size = record
        at += _RECORD.size
        if not 0 <= start <= MAX_RAM_SIZE or not 0 < size <= file.size - at:
            message = f"record of {size} bytes for {start:#x}: its bytes are not before the end"
            raise SnapmigError(message, path=file.shown, offset=at - _RECORD.size)
        found.extend((start, size, at))
        if len(found) > 3 * MAX_RECORDS:
            message = f"dump has more than {MAX_RECORDS} records"
            raise SnapmigError(message, path=file.shown)
        at += size
    return _without_overlaps(np.frombuffer(found, np.int64).reshape(-1, 3).T, file)


def _without_overlaps(records: Records, file: ImageFile) -> Records:
    # A later record replaces what an earlier one has for the same place.
    records = _sorted(records)
    starts = records[0]
    ends = np.maximum.accumulate(starts + records[1])
    begins_after = np.concatenate([[True], starts[1:] >= ends[:-1]])
    alone = begins_after & np.concatenate([begins_after[1:], [True]])
    if alone.all():
        return records
    several = records[:, ~alone]
    if several.shape[1] > MAX_OVERLAPS:
        message = f"{several.shape[1]} records overlap, expected at most {MAX_OVERLAPS}"
        raise SnapmigError(message, path=file.shown)
    return _sorted(np.concatenate([records[:, alone], _last_of(several)], axis=1))


def _last_of(records: Records) -> Records:
    # Each piece between two borders belongs to the last record that covers it.
    starts, sizes, places = records
    edges = np.unique(np.concatenate([starts, starts + sizes]))
    owner = np.full(len(edges), -1)
    for number in np.argsort(places):
        first, end = np.searchsorted(edges, [starts[number], starts[number] + sizes[number]])
        owner[first:end] = number
    pieces = np.flatnonzero(owner >= 0)
    of, begin = owner[pieces], edges[pieces]
    return np.stack([begin, edges[pieces + 1] - begin, places[of] + begin - starts[of]])


def _sorted(records: Records) -> Records:
    return np.ascontiguousarray(records[:, np.argsort(records[0], kind="stable")])
