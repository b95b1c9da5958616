"""
Index records: one per packet, as a numpy structured array. No I/O.

A record holds the place of a packet's stored bytes, their encoding, the kind of each page, and
three checksums: of the record itself, of the stored bytes, and of the page contents. Snapshots with
page digests add a fourth, of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.checksums import crc32
from snapmig.container.format import (
    COMPRESSED,
    RECORD_HEAD_SIZE,
    Encoding,
    record_size,
)
from snapmig.errors import CorruptSnapshotError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, PacketPlace
from snapmig.pages import Kinds, Mask

__all__ = (
    "Record",
    "Records",
    "StoredPacket",
    "check_record",
    "empty_records",
    "kind_counts",
    "pack_kinds",
    "record_dtype",
    "record_sum",
    "records_sound",
    "seal_records",
    "unpack_kinds",
    "unpack_records",
)

Records = npt.NDArray[np.void]


class StoredPacket(NamedTuple):
    """
    The stored bytes of a packet as described by a checked record, as plain values.

    :param kinds: of each page of a full packet
    :param stored_pages: number of pages in the stored bytes
    :param needs_parent: True if a page is the parent's, or stored as a difference from it
    """

    packet: int
    offset: int
    stored_size: int
    encoding: int
    stored_checksum: int
    digest: bytes
    kinds: Kinds
    stored_pages: int
    needs_parent: bool = False
    page_digests_checksum: int = 0

    @property
    def has_pages(self) -> bool:
        """True if any page is not zero: stored, or taken from the parent."""
        return self.stored_pages > 0 or self.needs_parent

    @property
    def mask(self) -> Mask:
        """The pages in the stored bytes."""
        return (self.kinds & 1).view(np.bool_)  # 1 us, where a conversion takes 6

    @property
    def in_use(self) -> Mask:
        """The pages other than zero."""
        return self.kinds.astype(np.bool_)  # 1 us, where a comparison takes 3 to 16


_SHIFTS = np.array((0, 2, 4, 6), np.uint8)
"""Bit positions of the kinds of four pages in a byte."""

Record = Any
"""One element of :data:`Records`; numpy has no type for the fields of a structured scalar."""


@cache
def record_dtype(packet_size: int) -> np.dtype[np.void]:
    """Return the layout of an index record for a packet size."""
    kinds_size = packet_size // PAGE_SIZE // 4
    fields = {
        "packet": ("<u8", 0),
        "offset": ("<u8", 8),
        "stored_size": ("<u4", 16),
        "encoding": ("u1", 20),
        "flags": ("u1", 21),
        "reserved_1": ("<u2", 22),
        "stored_checksum": ("<u4", 24),
        "record_checksum": ("<u4", 28),
        "digest": ("V16", 32),
        "nonce": ("V12", 48),
        "tag": ("V16", 60),
        "page_digests_checksum": ("<u4", 76),
        "reserved_2": ("V16", 80),
        "kinds": ((np.uint8, (kinds_size,)), RECORD_HEAD_SIZE),
    }
    if filling := record_size(packet_size) - RECORD_HEAD_SIZE - kinds_size:
        # Named, because numpy's copies leave out bytes outside all fields.
        fields["reserved_3"] = (f"V{filling}", RECORD_HEAD_SIZE + kinds_size)
    return np.dtype(
        {
            "names": list(fields),
            "formats": [code for code, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": record_size(packet_size),
        }
    )


def empty_records(first: int, count: int, packet_size: int) -> Records:
    """Return unsealed records of ``count`` empty packets, starting with packet ``first``."""
    records = np.zeros(count, record_dtype(packet_size))
    records["packet"] = np.arange(first, first + count)
    records["encoding"] = Encoding.EMPTY
    return records


def record_sum(raw: bytes | bytearray) -> int:
    """Return the CRC-32 of a record's bytes, with its own field taken as zero."""
    return crc32(raw[32:], crc32(b"\0\0\0\0", crc32(raw[:28])))


def seal_records(records: Records) -> None:
    """Fill in each record's own checksum."""
    records["record_checksum"] = 0
    size = records.dtype.itemsize
    raw = records.tobytes()
    records["record_checksum"] = [
        crc32(raw[at : at + size]) for at in range(0, len(raw), size)
    ]  # the field is zero already, so no call of record_sum is needed


def pack_kinds(kinds: Sequence[Kinds | Mask], pages: int) -> npt.NDArray[np.uint8]:
    """
    Return the stored form of the page kinds of packets.

    :param kinds: for each packet; a mask stands for data pages and zero pages
    :param pages: in a full packet
    """
    flat = b"".join(one.tobytes().ljust(pages, b"\0") for one in kinds)
    quads = np.frombuffer(flat, np.uint8).reshape(len(kinds), pages // 4, 4)
    joined = quads[:, :, 0] | quads[:, :, 1] << 2 | quads[:, :, 2] << 4 | quads[:, :, 3] << 6
    return joined.astype(np.uint8, copy=False)


def unpack_kinds(stored: npt.NDArray[np.uint8], pages: int) -> Kinds:
    """Return the kinds of a packet's first ``pages`` pages."""
    quads = np.asarray(stored.reshape(-1, 1) >> _SHIFTS & 3, np.uint8)
    return quads.reshape(-1)[:pages]


def unpack_records(records: Records) -> list[StoredPacket]:
    """Return checked records as plain values, ten times faster for a batch than one by one."""
    stored = records["kinds"]
    kinds = unpack_kinds(stored, stored.size * 4).reshape(len(records), -1)
    digests = records["digest"].tobytes()
    fields = ("packet", "offset", "stored_size", "encoding", "stored_checksum")
    columns: list[list[Any]] = [records[name].tolist() for name in fields]
    of_parents: list[Any] = np.asarray((stored & 0xAA).any(axis=1)).tolist()
    columns += [
        [digests[at : at + 16] for at in range(0, len(digests), 16)],
        list(kinds),
        np.bitwise_count(stored & 0x55).sum(axis=1).tolist(),
        of_parents,
        records["page_digests_checksum"].tolist(),
    ]
    return [StoredPacket(*values) for values in zip(*columns, strict=True)]


def full_digests(records: Records) -> list[bytes | None]:
    """Return the digests of checked records: of packets without zero pages, None for others."""
    stored = records["kinds"]
    full = ((stored | stored >> 1) & 0x55 == 0x55).all(axis=1).tolist()
    digests = records["digest"].tobytes()
    return [digests[at * 16 : at * 16 + 16] if whole else None for at, whole in enumerate(full)]


def kind_counts(records: Records) -> npt.NDArray[np.int64]:
    """
    Return the number of pages of each kind in records.

    Page places after the end of a block count as zero pages.
    """
    stored = records["kinds"]
    low, high = stored & 0x55, stored >> 1 & 0x55  # the two bits of each page, apart
    data, same, delta = (low & ~high, high & ~low, low & high)
    found = [np.bitwise_count(bits).sum(dtype=np.int64) for bits in (data, same, delta)]
    return np.array([stored.size * 4 - sum(found), *found], np.int64)


def check_record(
    record: Record,
    place: PacketPlace,
    window: tuple[int, int],
    *,
    has_parent: bool,
    has_page_digests: bool = False,
) -> None:
    """
    Check everything a record says about itself, before reading any byte it points to.

    :param place: the packet it should describe
    :param window: limits, as file offsets, for its stored bytes
    :param has_parent: allow pages of a parent
    :param has_page_digests: the snapshot has page digests, so the record has their checksum
    :raises CorruptSnapshotError: a wrong checksum, or an impossible field
    :raises UnsupportedError: an encoding unknown to this reader
    """
    raw = record.tobytes()
    computed = record_sum(raw)
    if computed != record["record_checksum"]:
        found = int(record["record_checksum"])
        message = f"index record's checksum is {found:#010x}, computed {computed:#010x}"
        raise CorruptSnapshotError(message, packet=place.packet)
    if record["packet"] != place.packet:
        message = f"index record is of packet {record['packet']}"
        raise CorruptSnapshotError(message, packet=place.packet)
    if record["encoding"] not in set(Encoding):
        message = f"encoding is {record['encoding']}, which this reader does not have"
        raise UnsupportedError(message, packet=place.packet)
    after_kinds = RECORD_HEAD_SIZE + len(record["kinds"])
    reserved = raw[21:24] + raw[48:76] + raw[80:RECORD_HEAD_SIZE] + raw[after_kinds:]
    if not (has_page_digests and record["kinds"].any()):
        reserved += raw[76:80]
    if any(reserved):
        message = "index record has reserved bits or an encryption nonce set, not known here"
        raise UnsupportedError(message, packet=place.packet)
    _check_pages(record, place, has_parent=has_parent)
    _check_place(record, place, window)


def records_sound(
    records: Records,
    first: int,
    places: tuple[int, int, int],
    *,
    has_parent: bool,
    has_page_digests: bool = False,
) -> bool:
    """
    Return True if :func:`check_record` would pass each of many records of full packets.

    Takes 1 us a record instead of 60: most records of a guest are read once, and store nothing. To
    find the reason for a refusal, call :func:`check_record`.

    :param first: the packet of the first record
    :param places: limits, as file offsets, for the stored bytes, and the distance from one packet's
        slot to the next, 0 in the packed layout
    :param has_parent: allow pages of a parent
    :param has_page_digests: the snapshot has page digests
    """
    size = records.dtype.itemsize
    start, stop, distance = places
    blank = records.copy()
    blank["record_checksum"] = 0
    raw = blank.tobytes()
    checksums = [crc32(raw[at : at + size]) for at in range(0, len(raw), size)]
    numbers = np.arange(first, first + len(records), dtype=np.uint64)
    heads = np.frombuffer(raw, np.uint8).reshape(-1, size)
    stored = records["stored_size"].astype(np.uint64)
    offset = records["offset"]
    pages = np.bitwise_count(records["kinds"] & 0x55).sum(axis=1, dtype=np.uint64)
    plain = pages * np.uint64(PAGE_SIZE)
    encoding = records["encoding"]
    fits = np.where(encoding == Encoding.RAW, stored == plain, stored < plain)
    digested = records["kinds"].any(axis=1) & has_page_digests
    slot = np.uint64(start) + numbers * np.uint64(distance) if distance else offset
    placed = (offset >= start) & (offset <= stop) & (stored <= stop - offset) & (offset == slot)
    return bool(
        np.array_equal(records["record_checksum"], checksums)
        and np.array_equal(records["packet"], numbers)
        and not heads[:, 21:24].any()
        and not heads[:, 48:76].any()
        and not heads[:, 80:RECORD_HEAD_SIZE].any()
        and not records["page_digests_checksum"][~digested].any()
        and not heads[:, RECORD_HEAD_SIZE + records["kinds"].shape[1] :].any()
        and (has_parent or not (records["kinds"] & 0xAA).any())
        and np.where(
            encoding == Encoding.EMPTY,
            (plain == 0) & (stored == 0) & (offset == 0),
            ((encoding == Encoding.RAW) | np.isin(encoding, COMPRESSED))
            & (stored > 0) & fits & placed,
        ).all()
    )  # fmt: skip


def _check_pages(record: Record, place: PacketPlace, *, has_parent: bool) -> None:
    kinds = unpack_kinds(record["kinds"], len(record["kinds"]) * 4)
    if not has_parent and (kinds & 2).any():
        message = "has pages of a parent, and the snapshot has no parent"
        raise CorruptSnapshotError(message, packet=place.packet)
    if kinds[place.pages :].any():
        message = "index record has pages after the end of its RAM block"
        raise CorruptSnapshotError(message, packet=place.packet)
    pages, stored_size = int(np.count_nonzero(kinds & 1)), int(record["stored_size"])
    if (record["encoding"] == Encoding.EMPTY) != (pages == 0):
        name = Encoding(int(record["encoding"])).name.lower()
        message = f"stored size is {stored_size} for {pages} data pages in a packet of {name}"
        raise CorruptSnapshotError(message, packet=place.packet)
    plain_size = pages * PAGE_SIZE
    expected = {
        Encoding.EMPTY: (stored_size == 0, "none"),
        Encoding.RAW: (stored_size == plain_size, str(plain_size)),
    }
    compressed = (0 < stored_size < plain_size, f"1 to {plain_size - 1}")
    ok, words = expected.get(Encoding(int(record["encoding"])), compressed)
    if not ok:
        message = f"stored size is {stored_size} for {pages} data pages, expected {words}"
        raise CorruptSnapshotError(message, packet=place.packet)


def _check_place(record: Record, place: PacketPlace, window: tuple[int, int]) -> None:
    offset, stored_size = int(record["offset"]), int(record["stored_size"])
    start, stop = window
    if stored_size == 0 and offset == 0:
        return
    if not start <= offset <= offset + stored_size <= stop or stored_size == 0:
        message = f"stored bytes are at {offset:#x}, expected between {start:#x} and {stop:#x}"
        raise CorruptSnapshotError(message, packet=place.packet)
