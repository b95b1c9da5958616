"""
The VM state of an internal snapshot as consecutive bytes.

It lies behind the end of the disk, at the next multiple of what one L1 entry describes, and is
found through the snapshot's own L1 table. The parent checks the tables and turns them into a
:class:`PageTable` with the place of each cluster; workers read through that.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from snapmig.errors import ImageChangedError, SnapmigError, UnsupportedError
from snapmig.images.file import ImageFile
from snapmig.images.qcow2.header import Header, SavedVm
from snapmig.images.readers.page_table import NO_PAGE, PageTable
from snapmig.pages import Bytes

__all__ = ("ClusterBytes", "VmStateFile", "find_state_size")

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_AHEAD = 4 << 20
"""Bytes read at once: a stream's pages come one after the other."""


class ClusterBytes:
    """
    Bytes in clusters anywhere in a file, read by offset; those without a cluster are zero.

    :param path: the file with the clusters
    :param table_path: the memfd of a table with the places of clusters
    :param unit: bytes in each
    :param size: bytes in all
    """

    def __init__(self, path: str, table_path: str, unit: int, size: int) -> None:
        self.size = size
        self._unit = unit
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False  # with the worker's handler
        fd = os.open(table_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            table = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self._places: npt.NDArray[np.int64] = np.frombuffer(table, np.int64)
        self._start = 0
        self._held: Bytes = np.empty(0, np.uint8)

    @property
    def raw(self) -> ClusterBytes:
        """The same bytes, for searching."""
        return self

    def window(self, start: int, stop: int) -> Bytes:
        """Return a range, which ends with the last byte at the latest."""
        stop = min(stop, self.size)
        if not self._start <= start <= stop <= self._start + len(self._held):
            self._start = start
            self._held = self._load(start, min(max(stop, start + _AHEAD), self.size))
        return self._held[start - self._start : stop - self._start]

    def find(self, wanted: bytes, start: int, stop: int, /) -> int:
        """Return the first offset of a byte string, -1 if there is none."""
        while start + len(wanted) <= stop:
            held = self.window(start, min(stop, start + _AHEAD)).tobytes()
            found = held.find(wanted)
            if found >= 0:
                return start + found
            start += len(held) - len(wanted) + 1
        return -1

    def __getitem__(self, part: slice, /) -> bytes:
        """Return a copy of a range."""
        return self.window(part.start, part.stop).tobytes()

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self.size

    def release(self, start: int, stop: int) -> None:
        """Do nothing: only the range read last stays in this process."""

    def _load(self, start: int, stop: int) -> Bytes:
        content = np.zeros(max(0, stop - start), np.uint8)
        first = start // self._unit
        places = self._places[first : -(-stop // self._unit)]
        # The first cluster of a file, after its header, seems to continue a missing one at 0.
        apart = (np.diff(places) != self._unit) | (places[:-1] == NO_PAGE)
        breaks = np.flatnonzero(apart) + 1
        for low, high in pairwise([0, *breaks.tolist(), len(places)]):
            if low < high and places[low] != NO_PAGE:
                begin = max(start, (first + low) * self._unit)
                end = min(stop, (first + high) * self._unit)
                offset = int(places[low]) + begin - (first + low) * self._unit
                self._read(content[begin - start : end - start], offset)
        return content

    def _read(self, content: Bytes, offset: int) -> None:
        done = 0
        while done < content.size:
            count = os.preadv(self._fd, [content.data[done:]], offset + done)
            if count == 0:
                raise ImageChangedError("image ends inside a cluster: it was cut")
            done += count


class VmStateFile:
    """
    The VM state of one snapshot, readable like a file.

    :param file: the disk image; stays the caller's until :meth:`close`
    :raises SnapmigError: a table is impossible
    """

    def __init__(self, file: ImageFile, header: Header, saved: SavedVm) -> None:
        self.shown = file.shown
        self.size = saved.vm_state_size
        self._file = file
        self._unit = header.unit
        self._table = _place_clusters(file, header, saved)
        self._bytes = self.opener()()

    def opener(self) -> Callable[[], ClusterBytes]:
        """Return a picklable function to open a reader in any process."""
        return partial(ClusterBytes, self._file.path, self._table.path, self._unit, self.size)

    def read(self, offset: int, length: int) -> bytes:
        """
        Return some of its bytes.

        :raises SnapmigError: it ends before them
        """
        if offset + length > self.size:
            message = f"VM state ends at {self.size:#x}, expected {length} bytes from here"
            raise SnapmigError(message, path=self.shown, offset=offset)
        return self._bytes.window(offset, offset + length).tobytes()

    def check_unchanged(self) -> None:
        """Compare the file with its state when opened."""
        self._file.check_unchanged()

    def release(self) -> None:
        """Close the table, and leave the file open."""
        self._table.close()

    def close(self) -> None:
        """Close the file and the table."""
        self.release()
        self._file.close()


def find_state_size(file: ImageFile, header: Header, saved: SavedVm) -> int:
    """
    Return the size of a VM state by its clusters, without the zeros at its end.

    With mapped-ram QEMU records how much it wrote, which is less than where it wrote: pages have
    places of their own, and those of zeros are left out.

    :raises SnapmigError: a table is impossible
    """
    used = 0
    count = saved.l1_size + saved.disk_size // -header.span
    for number, offset in _l2_tables(file, header, saved, count):
        there = np.flatnonzero(_places(file.read(offset, header.cluster_size), file, header))
        if there.size:
            used = (number * header.span // header.unit + int(there[-1]) + 1) * header.unit
    state = VmStateFile(file, header, saved._replace(vm_state_size=used))
    try:
        last = state.read(max(0, used - header.unit), min(used, header.unit))
    finally:
        state.release()
    return used - len(last) + len(last.rstrip(b"\0"))


def _place_clusters(file: ImageFile, header: Header, saved: SavedVm) -> PageTable:
    try:
        table = PageTable(-(-saved.vm_state_size // header.unit))
    except SnapmigError as error:
        message = f"VM state has {saved.vm_state_size} bytes, more than any guest's"
        raise SnapmigError(message, path=file.shown) from error
    try:
        _fill(table.entries, file, header, saved)
    except BaseException:
        table.close()
        raise
    return table


def _fill(entries: npt.NDArray[np.int64], file: ImageFile, header: Header, saved: SavedVm) -> None:
    unit, each = header.unit, header.span // header.unit
    left = file.size // unit + 1
    count = -(-saved.vm_state_size // header.span)
    for number, offset in _l2_tables(file, header, saved, count):
        places = _places(file.read(offset, header.cluster_size), file, header)
        places = places[: len(entries) - number * each]
        # Only what is there: writing zeros would fill the memfd's holes.
        there = np.flatnonzero(places)
        left -= len(there)
        if left < 0:
            raise SnapmigError("VM state has more clusters than the file", path=file.shown)
        entries[number * each + there] = places[there]
        sizes = np.minimum(unit, saved.vm_state_size - (number * each + there) * unit)
        end = int((places[there] + sizes).max(initial=0))
        if end > file.size:
            message = f"VM state has a cluster that ends at {end:#x}, the file at {file.size:#x}"
            raise SnapmigError(f"{message}: the image was cut short", path=file.shown)


def _l2_tables(
    file: ImageFile, header: Header, saved: SavedVm, count: int
) -> Iterator[tuple[int, int]]:
    # The L2 tables of the VM state, with their numbers in it, as far as there are any.
    first = -(-saved.disk_size // header.span)
    if first + count > saved.l1_size:
        message = f"VM state needs {first + count} entries of an L1 table of {saved.l1_size}"
        raise SnapmigError(message, path=file.shown)
    raw = file.read(saved.l1_offset + first * 8, count * 8)
    tables = (np.frombuffer(raw, ">u8") & np.uint64(_OFFSET)).astype(np.int64)
    there = np.flatnonzero(tables)
    if len(np.unique(tables[there])) < len(there):
        raise SnapmigError("two entries of an L1 table have the same L2 table", path=file.shown)
    for number, offset in zip(there.tolist(), tables[there].tolist(), strict=True):
        if offset % header.cluster_size:
            message = f"L2 table is at {offset:#x}, expected the start of a cluster"
            raise SnapmigError(message, path=file.shown)
        yield number, offset


def _places(raw: bytes, file: ImageFile, header: Header) -> npt.NDArray[np.int64]:
    # The place of each unit of an L2 table; 0 where it is zero or was never written.
    words = np.frombuffer(raw, ">u8").astype(np.uint64)
    entries = words[::2] if header.extended else words
    if (entries & np.uint64(_COMPRESSED)).any():
        raise UnsupportedError("VM state has compressed clusters", path=file.shown)
    places = (entries & np.uint64(_OFFSET)).astype(np.int64)
    if (places % header.cluster_size).any():
        raise SnapmigError("an L2 table has an entry inside a cluster", path=file.shown)
    if header.extended:
        bits = np.unpackbits(words[1::2].astype("<u8").view(np.uint8), bitorder="little")
        here, zero = np.split(bits.reshape(-1, 64), 2, axis=1)
        units = places[:, None] + np.arange(here.shape[1]) * header.unit
        usable = here.astype(bool) & ~zero.astype(bool) & (places[:, None] != 0)
        return np.where(usable, units, NO_PAGE).reshape(-1)
    return np.where(entries & np.uint64(_ZERO), NO_PAGE, places)
