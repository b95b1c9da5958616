"""
qcow2 disk images with a guest's state inside, built by hand; every field can be wrong.

See QEMU's docs/interop/qcow2.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

COPIED = 1 << 63
Change = Callable[[list[int]], None]


@dataclass(frozen=True)
class Snap:
    """
    A snapshot.

    :param holes: numbers of clusters of the VM state that have no place
    :param zeros: those marked as zeros, with a place all the same
    :param change: changes the entries of the L2 tables, one after the other
    """

    state: bytes = b""
    name: bytes = b"one"
    id: bytes = b"1"
    holes: Sequence[int] = ()
    zeros: Sequence[int] = ()
    change: Change | None = None
    change_l1: Change | None = None
    stated_size: int | None = None
    disk_size: int | None = None
    extra: bytes | None = None
    l1_offset: int | None = None
    l1_size: int | None = None


@dataclass
class Disk:
    """A disk image without data of its own; clusters lie in the file in reverse order."""

    snaps: Sequence[Snap]
    bits: int = 12
    version: int = 3
    size: int = 1 << 20
    features: int = 0
    crypt: int = 0
    magic: bytes = b"QFI\xfb"
    count: int | None = None
    table_offset: int | None = None
    extended: bool = False
    file: bytearray = field(default_factory=bytearray)

    def build(self) -> bytes:
        """Return the file."""
        self.file = bytearray(1 << self.bits)
        entries = b"".join(self._entry(snap) for snap in self.snaps)
        at = self._add(entries) if entries else 0
        # QEMU reads these two, empty as they are.
        disk, counts = self._add(bytes(8 * self._disk_tables)), self._add(bytes(8))
        features = self.features | (16 if self.extended else 0)
        head = struct.pack(
            ">4sIQIIQIIQQIIQ", self.magic, self.version, 0, 0, self.bits, self.size, self.crypt,
            self._disk_tables, disk, counts, 1,
            len(self.snaps) if self.count is None else self.count,
            at if self.table_offset is None else self.table_offset,
        )  # fmt: skip
        if self.version == 3:
            head += struct.pack(">QQQII", features, 0, 0, 4, 104)
        self.file[: len(head)] = head
        return bytes(self.file)

    @property
    def _disk_tables(self) -> int:
        return -(-self.size // ((1 << 2 * self.bits) // (16 if self.extended else 8)))

    def _add(self, content: bytes) -> int:
        # At the start of a cluster of its own.
        at = len(self.file)
        cluster = 1 << self.bits
        self.file += content.ljust(-(-len(content) // cluster) * cluster, b"\0")
        return at

    def _entry(self, snap: Snap) -> bytes:
        tables = self._tables(snap) if snap.state else []
        at = self._add(struct.pack(f">{len(tables)}Q", *tables)) if tables else 0
        size = len(snap.state) if snap.stated_size is None else snap.stated_size
        disk = self.size if snap.disk_size is None else snap.disk_size
        extra = struct.pack(">QQ", size, disk) if snap.extra is None else snap.extra
        head = struct.pack(
            ">QIHHIIQII", at if snap.l1_offset is None else snap.l1_offset,
            len(tables) if snap.l1_size is None else snap.l1_size, len(snap.id), len(snap.name),
            1_700_000_000, 0, 5 * 10**9, size & 0xFFFFFFFF, len(extra),
        )  # fmt: skip
        entry = head + extra + snap.id + snap.name
        return entry.ljust(-(-len(entry) // 8) * 8, b"\0")

    def _tables(self, snap: Snap) -> list[int]:
        cluster = 1 << self.bits
        count = -(-len(snap.state) // cluster)
        places = {}
        for number in reversed(range(count)):
            if number not in snap.holes:
                places[number] = self._add(snap.state[number * cluster : (number + 1) * cluster])
        entries = []
        for number in range(count):
            zero = number in snap.zeros
            entries.append(places.get(number, 0) | (0 if self.extended else zero))
            if self.extended:
                entries.append(0xFFFFFFFF << 32 if zero else 0xFFFFFFFF * (number in places))
        if snap.change:
            snap.change(entries)
        each = cluster // 8
        l1 = [0] * self._disk_tables
        for first in range(0, len(entries), each):
            part = entries[first : first + each]
            l1.append(self._add(struct.pack(f">{len(part)}Q", *part)) | COPIED)
        if snap.change_l1:
            snap.change_l1(l1)
        return l1
