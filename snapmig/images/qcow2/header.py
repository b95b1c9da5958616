"""
The header of a qcow2 image and its table of snapshots.

See QEMU's docs/interop/qcow2.rst; all integers are big-endian. The file is not trusted: each number
is compared with the file's size or with QEMU's own limits before it is used.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.images.file import ImageFile

__all__ = ("MAGIC", "Header", "SavedVm", "read_header", "read_snapshots")

MAGIC = b"QFI\xfb"

_SIZE_V2 = 72
_SIZE_V3 = 104
_HEADER = ">4sIQIIQIIQQIIQ"
_CORRUPT = 1 << 1
_EXTENDED_L2 = 1 << 4
_KNOWN = 0b11011
"""Dirty, corrupt, compression type and extended L2; a dirty image has stale reference counts, which
are not used here."""
_EXTERNAL_DATA = 1 << 2

_REMEDY = "load the snapshot in QEMU, and save the running guest"

_CLUSTER_BITS = range(9, 22)
_SUBCLUSTERS = 32
_LEAST_EXTENDED_BITS = 14
_MAX_SIZE = 1 << 62
_MAX_L1_SIZE = 32 << 20
_MAX_SNAPSHOTS = 65536
_MAX_TABLE_SIZE = 64 << 20
_MAX_EXTRA_SIZE = 1024
_ENTRY = ">QIHHIIQII"
_ENTRY_SIZE = struct.calcsize(_ENTRY)


class Header(NamedTuple):
    """
    The facts of a header.

    :param size: of the disk in bytes
    :param extended: entries of L2 tables have a bitmap of subclusters
    """

    version: int
    cluster_bits: int
    size: int
    extended: bool
    snapshot_count: int
    snapshots_offset: int

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        """Entries in an L2 table, which fills one cluster."""
        return self.cluster_size // (16 if self.extended else 8)

    @property
    def span(self) -> int:
        """Bytes of the disk described by one L1 entry."""
        return self.l2_entries << self.cluster_bits

    @property
    def unit(self) -> int:
        """Bytes of the smallest part with a place of its own: a cluster or a subcluster."""
        return self.cluster_size // (_SUBCLUSTERS if self.extended else 1)


class SavedVm(NamedTuple):
    """
    An internal snapshot.

    :param disk_size: of the disk when it was made, in bytes
    :param vm_state_size: of the guest's memory and devices, 0 for a snapshot of the disk alone
    :param seconds: time of its making, in seconds since 1970
    :param clock_ns: the guest's own clock, in nanoseconds
    """

    id: str
    name: str
    seconds: int
    clock_ns: int
    disk_size: int
    vm_state_size: int
    l1_offset: int
    l1_size: int


def read_header(file: ImageFile) -> Header:
    """
    Return the header of an image.

    :raises SnapmigError: not a qcow2 image, cut short, or an impossible field
    :raises UnsupportedError: encrypted, with its data in another file, or a feature not known here
    """
    raw = file.read(0, min(_SIZE_V3, file.size))
    if len(raw) < _SIZE_V2 or not raw.startswith(MAGIC):
        raise SnapmigError("this is not a qcow2 disk image", path=file.shown)
    _, version, _, _, bits, size, crypt, _, _, _, _, count, offset = struct.unpack_from(
        _HEADER, raw
    )
    if version not in (2, 3):
        raise UnsupportedError(f"qcow2 is of version {version}, expected 2 or 3", path=file.shown)
    if version == 3 and len(raw) < _SIZE_V3:
        raise SnapmigError(f"qcow2 header ends at {len(raw)}", path=file.shown)
    features = int.from_bytes(raw[72:80]) if version == 3 else 0
    _check_features(features, crypt, file)
    extended = bool(features & _EXTENDED_L2)
    if bits not in _CLUSTER_BITS or (extended and bits < _LEAST_EXTENDED_BITS):
        raise SnapmigError(f"clusters have 2^{bits} bytes, expected 2^9 to 2^21", path=file.shown)
    if size > _MAX_SIZE or count > _MAX_SNAPSHOTS:
        message = f"disk has {size} bytes and {count} snapshots, which no qcow2 image has"
        raise SnapmigError(message, path=file.shown)
    return Header(version, bits, size, extended, count, offset)


def read_snapshots(file: ImageFile, header: Header) -> tuple[SavedVm, ...]:
    """
    Return all internal snapshots, with and without a guest's memory.

    :raises SnapmigError: an impossible field
    """
    at = header.snapshots_offset
    found = []
    for _ in range(header.snapshot_count):
        entry, at = _read_snapshot(file, header, at)
        found.append(entry)
        if at - header.snapshots_offset > _MAX_TABLE_SIZE:
            message = f"table of snapshots has more than {_MAX_TABLE_SIZE} bytes"
            raise SnapmigError(message, path=file.shown)
    return tuple(found)


def _check_features(features: int, crypt: int, file: ImageFile) -> None:
    words = None
    if crypt:
        words = f"the qcow2 image is encrypted: {_REMEDY}"
    elif features & _EXTERNAL_DATA:
        words = f"the qcow2 image has its data in another file: {_REMEDY}"
    elif features & ~_KNOWN:
        words = f"the qcow2 image has features {features & ~_KNOWN:#x}, which are not known here"
    if words is not None:
        raise UnsupportedError(words, path=file.shown)
    if features & _CORRUPT:
        message = "the qcow2 image is marked as corrupt: repair it first (qemu-img check -r all)"
        raise SnapmigError(message, path=file.shown)


def _read_snapshot(file: ImageFile, header: Header, at: int) -> tuple[SavedVm, int]:
    fields = struct.unpack(_ENTRY, file.read(at, _ENTRY_SIZE))
    l1_offset, l1_size, id_size, name_size, seconds, _, clock, state_size, extra_size = fields
    if extra_size > _MAX_EXTRA_SIZE:
        message = f"snapshot has {extra_size} extra bytes, expected at most {_MAX_EXTRA_SIZE}"
        raise SnapmigError(message, path=file.shown, offset=at)
    rest = file.read(at + _ENTRY_SIZE, extra_size + id_size + name_size)
    extra, names = rest[:extra_size], rest[extra_size:]
    if extra_size >= 8:
        state_size = int.from_bytes(extra[:8])
    disk_size = int.from_bytes(extra[8:16]) if extra_size >= 16 else header.size
    if l1_size * 8 > _MAX_L1_SIZE or l1_offset + l1_size * 8 > file.size:
        message = f"snapshot has an L1 table of {l1_size} entries at {l1_offset:#x}"
        raise SnapmigError(f"{message}, past the file's end", path=file.shown, offset=at)
    if disk_size > _MAX_SIZE or state_size > _MAX_SIZE:
        message = f"snapshot has {disk_size} bytes of disk and {state_size} of VM state"
        raise SnapmigError(f"{message}, which no qcow2 image has", path=file.shown, offset=at)
    number, name = (part.decode("utf-8", "replace") for part in (names[:id_size], names[id_size:]))
    saved = SavedVm(number, name, seconds, clock, disk_size, state_size, l1_offset, l1_size)
    end = at + _ENTRY_SIZE + len(rest)
    return saved, -(-end // 8) * 8
