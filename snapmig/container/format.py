"""
Constants of the snapshot format, and its superblock as bytes.

docs/format.md is the specification; each of its numbers is defined once here, and a test compares
the two. This module does no I/O.

Format versions:

- 1.0: first version.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

from snapmig.checksums import crc32
from snapmig.errors import CorruptSnapshotError, UnsupportedError
from snapmig.file_kinds import identify
from snapmig.geometry import PAGE_SIZE

__all__ = (
    "Encoding",
    "Layout",
    "PageKind",
    "Sealing",
    "Superblock",
    "align_up",
    "page_digests_size",
    "record_size",
)

MAGIC = b"\x93SNAPMIG"
"""First 8 bytes. 0x93 is not ASCII and can't start a UTF-8 character."""
VERSION_MAJOR = 1
VERSION_MINOR = 0

SUPERBLOCK_SIZE = 4096
ALIGNMENT = 4096
"""Index and data start at multiples of this."""

INCOMPATIBLE_KNOWN = 0
"""Incompatible feature bits understood by this reader: none are defined yet."""

MIN_PACKET_SIZE = 64 << 10
MAX_PACKET_SIZE = 4 << 20
DEFAULT_PACKET_SIZE = 512 << 10
"""128 pages of 4 KiB, as multifd sends them. A real guest costs 1.1 % in partly used 4 KiB blocks
at this size, and 8.7 % at 64 KiB."""
MIN_WINDOW_BITS = 9
MAX_WINDOW_BITS = 15

MAX_RAM_BLOCKS = 4096
MAX_ATTACHMENTS = 4096
MAX_ATTACHMENT_SIZE = 1 << 30
MAX_NAME_SIZE = 255

PAGE_DIGEST_SIZE = 16
"""Bytes of the digest of one page, an XXH3-128."""

MAX_PIECES = 1 << 16
LITTLE_ENDIAN, BIG_ENDIAN = 1, 2
"""Byte orders, numbered as in ELF."""


class Layout(IntEnum):
    """Layout of packets in the file: in slots of a fixed size, or packed end to end."""

    FIXED = 1
    PACKED = 2


class Encoding(IntEnum):
    """Encoding of the stored bytes of a packet or an attachment. Zero is never a valid encoding."""

    EMPTY = 1
    RAW = 2
    DEFLATE = 3
    ZSTD = 4
    LZ4 = 5


class PageKind(IntEnum):
    """Kind of a page by the source of its contents: two bits for each page of a packet."""

    ZERO = 0
    DATA = 1
    SAME_AS_PARENT = 2
    DELTA_AGAINST_PARENT = 3


class Sealing(IntEnum):
    """Protection by keys: none, of the integrity, or of the secrecy, too."""

    NONE = 0
    SIGNED = 1
    ENCRYPTED = 2


COMPRESSED = (Encoding.DEFLATE, Encoding.ZSTD, Encoding.LZ4)
"""Encodings of packets stored as one stream, shorter than the pages."""

KNOWN_ENCODINGS = sum(1 << kind for kind in Encoding)


def align_up(number: int, alignment: int = ALIGNMENT) -> int:
    """Return ``number`` rounded up to a multiple of ``alignment``."""
    return -(-number // alignment) * alignment


def record_size(packet_size: int) -> int:
    """Return the bytes of one index record, including two bits for each page of a packet."""
    kinds_size = packet_size // PAGE_SIZE // 4
    return align_up(RECORD_HEAD_SIZE + kinds_size, 8)


def page_digests_size(packet_size: int) -> int:
    """Return the bytes of the page digests of one packet, in a snapshot with page digests."""
    return packet_size // PAGE_SIZE * PAGE_DIGEST_SIZE


RECORD_HEAD_SIZE = 96
"""Bytes of an index record before its page kinds: 128 in all for a packet of 512 KiB."""


U8 = int
U16 = int
U32 = int
U64 = int
Bytes3 = bytes
Bytes8 = bytes
Bytes16 = bytes
Bytes32 = bytes
_CODES = {
    "U8": "B",
    "U16": "H",
    "U32": "I",
    "U64": "Q",
    "Bytes3": "3s",
    "Bytes8": "8s",
    "Bytes16": "16s",
    "Bytes32": "32s",
}
"""Codes of :mod:`struct` for the types of the superblock's fields."""


class Superblock(NamedTuple):
    """
    The first :data:`SUPERBLOCK_SIZE` bytes of a snapshot file, padded with zeros.

    Fields are listed in their stored order, each with the name of its type.
    """

    magic: Bytes8 = MAGIC
    version_major: U16 = VERSION_MAJOR
    version_minor: U16 = VERSION_MINOR
    checksum: U32 = 0
    incompatible: U64 = 0
    compatible: U64 = 0
    snapshot_id: Bytes16 = bytes(16)
    parent_id: Bytes16 = bytes(16)
    parent_root: Bytes32 = bytes(32)
    file_size: U64 = 0
    created_ns: U64 = 0
    encodings: U64 = 0
    page_size: U32 = PAGE_SIZE
    packet_size: U32 = DEFAULT_PACKET_SIZE
    record_size: U32 = 0
    layout: U8 = Layout.FIXED
    window_bits: U8 = MAX_WINDOW_BITS
    reserved: U16 = 0
    packet_count: U64 = 0
    index_offset: U64 = 0
    index_digest: Bytes32 = bytes(32)
    data_offset: U64 = 0
    data_size: U64 = 0
    block_table_offset: U64 = 0
    block_count: U32 = 0
    block_table_checksum: U32 = 0
    attachment_table_offset: U64 = 0
    attachment_count: U32 = 0
    attachment_table_checksum: U32 = 0
    page_digests_offset: U64 = 0
    piece_table_offset: U64 = 0
    piece_count: U32 = 0
    piece_table_checksum: U32 = 0
    machine: U16 = 0
    machine_class: U8 = 0
    machine_data: U8 = 0
    sealing: U8 = Sealing.NONE
    reserved_1: Bytes3 = bytes(3)
    key_table_offset: U64 = 0
    tables_digest: Bytes32 = bytes(32)
    seal: Bytes32 = bytes(32)

    def pack(self) -> bytes:
        """Return the stored form, with its checksum filled in."""
        raw = self._pack_with(0)
        return self._pack_with(crc32(raw))

    def unsealed(self) -> bytes:
        """Return the bytes that the seal covers: the stored form without checksum and seal."""
        return self._replace(seal=bytes(32))._pack_with(0)

    def _pack_with(self, checksum: int) -> bytes:
        return _LAYOUT.pack(*self._replace(checksum=checksum)).ljust(SUPERBLOCK_SIZE, b"\0")

    @property
    def root(self) -> bytes:
        """The SHA-256 of the stored form: of all that the snapshot holds, by their digests."""
        return hashlib.sha256(self._pack_with(self.checksum)).digest()

    @classmethod
    def unpack(cls, raw: bytes) -> Superblock:
        """
        Return a stored superblock, after all checks possible from its own bytes.

        Magic and major version come first, because only they keep their place in every future
        version; then the checksum; then features; then each field's limits.

        :raises CorruptSnapshotError: not a snapshot, or a wrong checksum or field
        :raises UnsupportedError: another major version, or an unknown feature
        """
        _check_magic(raw)
        block = cls(*_LAYOUT.unpack_from(raw))
        if block.version_major != VERSION_MAJOR:
            message = (
                f"format version is {block.version_major}.{block.version_minor}, "
                f"this reader knows {VERSION_MAJOR}.x"
            )
            raise UnsupportedError(message)
        computed = crc32(raw[16:], crc32(bytes(4), crc32(raw[:12])))
        if computed != block.checksum:
            message = f"superblock checksum is {block.checksum:#010x}, computed {computed:#010x}"
            raise CorruptSnapshotError(message)
        block._check_features()
        if any(raw[_LAYOUT.size :]):
            raise CorruptSnapshotError("superblock has reserved bytes set")
        block._check_fields()
        return block

    def _check_features(self) -> None:
        if unknown := self.incompatible & ~INCOMPATIBLE_KNOWN:
            bits = [bit for bit in range(64) if unknown >> bit & 1]
            message = f"needs the features with the bits {bits}, which this reader does not have"
            raise UnsupportedError(message)
        if unknown := self.encodings & ~KNOWN_ENCODINGS:
            kinds = [bit for bit in range(64) if unknown >> bit & 1]
            message = f"has packets in the encodings {kinds}, which this reader does not have"
            raise UnsupportedError(message)
        if self.layout not in set(Layout):
            message = f"has the layout {self.layout}, which this reader does not have"
            raise UnsupportedError(message)
        if self.sealing not in set(Sealing):
            message = f"has the sealing {self.sealing}, which this reader does not have"
            raise UnsupportedError(message)
        if self.page_size != PAGE_SIZE:
            message = f"has pages of {self.page_size} bytes, this reader knows {PAGE_SIZE}"
            raise UnsupportedError(message)

    def _check_fields(self) -> None:
        for name, found, expected, ok in (
            ("packet size", self.packet_size, "a power of two from 64 KiB to 4 MiB",
             is_packet_size(self.packet_size)),
            ("window", self.window_bits, f"{MIN_WINDOW_BITS} to {MAX_WINDOW_BITS} bits",
             MIN_WINDOW_BITS <= self.window_bits <= MAX_WINDOW_BITS),
            ("record size", self.record_size, "what the packet size gives",
             self.record_size == record_size(self.packet_size)),
            ("number of RAM blocks", self.block_count, f"1 to {MAX_RAM_BLOCKS}",
             1 <= self.block_count <= MAX_RAM_BLOCKS),
            ("number of attachments", self.attachment_count, f"at most {MAX_ATTACHMENTS}",
             self.attachment_count <= MAX_ATTACHMENTS),
            ("number of pieces", self.piece_count, f"at most {MAX_PIECES}",
             self.piece_count <= MAX_PIECES),
            ("machine's class", self.machine_class, "1 or 2, or 0 without a machine",
             self.machine_class in ((1, 2) if self.machine else (0,))),
            ("machine's byte order", self.machine_data, "1 or 2, or 0 without a machine",
             self.machine_data in ((1, 2) if self.machine else (0,))),
            ("reserved field", self.reserved, "0", self.reserved == 0),
            ("reserved field", self.reserved_1.hex(), "0", not any(self.reserved_1)),
            ("key table's offset", self.key_table_offset, "0 only where nothing is sealed",
             bool(self.sealing) == bool(self.key_table_offset)),
            ("seal", self.seal.hex(), "0 where nothing is sealed",
             bool(self.sealing) or not any(self.seal)),
        ):  # fmt: skip
            if not ok:
                raise CorruptSnapshotError(f"{name} is {found}, expected {expected}")


def is_packet_size(size: int) -> bool:
    """Return True if this is a valid packet size in bytes."""
    return MIN_PACKET_SIZE <= size <= MAX_PACKET_SIZE and size & (size - 1) == 0


def _check_magic(raw: bytes) -> None:
    head = raw[: len(MAGIC)]
    if len(raw) >= SUPERBLOCK_SIZE and head == MAGIC:
        return
    if not raw:
        found = "file is empty"
    elif not any(raw):
        found = "file starts with zeros (a save that did not finish?)"
    elif head == MAGIC:
        found = f"file has only {len(raw)} bytes"
    elif (kind := identify(raw)) is not None:
        hint = "; did you mean save?" if kind.is_image else f"; {kind.advice}" * kind.packed
        raise CorruptSnapshotError(f"not a snapshot: this is {kind.name}{hint}")
    else:
        found = f"file starts with {head.hex(' ')}"
    raise CorruptSnapshotError(f"not a snapshot: {found}, expected {MAGIC.hex(' ')}")


def _field_codes() -> list[str]:
    # NamedTuple wraps annotations, which are strings here, until Python 3.13.
    types = (getattr(kind, "__forward_arg__", kind) for kind in Superblock.__annotations__.values())
    return [_CODES[str(kind)] for kind in types]


_LAYOUT = struct.Struct("<" + "".join(_field_codes()))


def superblock_fields() -> list[tuple[int, int, str]]:
    """Return (offset, size, name) of each field of the superblock."""
    sizes = [struct.calcsize("<" + code) for code in _field_codes()]
    return list(zip(accumulate(sizes, initial=0), sizes, Superblock._fields, strict=False))
