"""
Build snapshots, valid and broken ones, from docs/format.md alone.

Nothing here imports snapmig, so a snapshot that snapmig reads from here follows the document. A
`Snapshot` describes a file; `build()` returns its bytes. Each field of each structure can be
replaced, and every checksum is computed after that, so that a file breaks only the rule it is made
to break: a checksum is wrong only if it is replaced itself.
"""

import functools
import hashlib
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby

import xxhash

from tests.support.sealing import Sealing
from tests.support.structures import pack

PAGE = 4096
PACKET = 65536
EMPTY, RAW, DEFLATE, ZSTD, LZ4 = 1, 2, 3, 4, 5
FIXED, PACKED = 1, 2
ZERO, DATA = 0, 1
ZSTD_BLOCK = 128 << 10

SUPERBLOCK_FIELDS = {
    "magic": "8s",
    "version_major": "H",
    "version_minor": "H",
    "checksum": "I",
    "incompatible": "Q",
    "compatible": "Q",
    "snapshot_id": "16s",
    "parent_id": "16s",
    "parent_root": "32s",
    "file_size": "Q",
    "created_ns": "Q",
    "encodings": "Q",
    "page_size": "I",
    "packet_size": "I",
    "record_size": "I",
    "layout": "B",
    "window_bits": "B",
    "reserved": "H",
    "packet_count": "Q",
    "index_offset": "Q",
    "index_digest": "32s",
    "data_offset": "Q",
    "data_size": "Q",
    "block_table_offset": "Q",
    "block_count": "I",
    "block_table_checksum": "I",
    "attachment_table_offset": "Q",
    "attachment_count": "I",
    "attachment_table_checksum": "I",
    "page_digests_offset": "Q",
    "piece_table_offset": "Q",
    "piece_count": "I",
    "piece_table_checksum": "I",
    "machine": "H",
    "machine_class": "B",
    "machine_data": "B",
    "sealing": "B",
    "reserved_1": "3s",
    "key_table_offset": "Q",
    "tables_digest": "32s",
    "seal": "32s",
    "reserved_rest": "3760s",
}
BLOCK_FIELDS = {"name": "256s", "size": "Q", "page_size": "Q", "unused": "48s"}
PIECE_FIELDS = {"gpa": "Q", "size": "Q", "offset": "Q", "block": "I", "reserved": "I"}
RECORD_FIELDS = {
    "packet": "Q",
    "offset": "Q",
    "stored_size": "I",
    "encoding": "B",
    "flags": "B",
    "reserved_1": "H",
    "stored_checksum": "I",
    "record_checksum": "I",
    "digest": "16s",
    "nonce": "12s",
    "tag": "16s",
    "page_digests_checksum": "I",
    "page_digests_tag": "16s",
}  # kinds and filling follow
ATTACHMENT_FIELDS = {
    "name": "256s",
    "offset": "Q",
    "stored_size": "Q",
    "size": "Q",
    "encoding": "B",
    "unused": "7s",
    "sha256": "32s",
    "unused_rest": "64s",
}


def align(number: int, multiple: int) -> int:
    """Return `number` rounded up to a multiple."""
    return -(-number // multiple) * multiple


def deflate(data: bytes, window_bits: int = 15, level: int = 6) -> bytes:
    """Return one raw deflate stream of the data."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    return compressor.compress(data) + compressor.flush()


def zstd(data: bytes, size: int | None = None, window: int | None = None) -> bytes:
    """
    Return one zstd frame (RFC 8878) of the data, made of raw and run-length blocks.

    :param size: size in the header; None for the real one, -1 for no size
    :param window: window descriptor, for a frame without a single segment
    """
    announced = b"" if size == -1 else struct.pack("<Q", len(data) if size is None else size)
    header = 0 if size == -1 else 3 << 6
    if window is None and size != -1:
        frame = struct.pack("<IB", 0xFD2FB528, header | 1 << 5) + announced
    else:
        frame = struct.pack("<IBB", 0xFD2FB528, header, window or 7 << 3) + announced
    pieces = [data[at : at + ZSTD_BLOCK] for at in range(0, len(data), ZSTD_BLOCK)]
    blocks = [block for piece in pieces for block in zstd_blocks(piece)]
    for number, (kind, count, contents) in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += struct.pack("<I", count << 3 | kind << 1 | last)[:3] + contents
    return frame


@functools.lru_cache(maxsize=4)  # a frame of one piece over and over is cut once
def zstd_blocks(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return type, size and bytes of raw blocks, 0, and of run-length blocks, 1."""
    blocks: list[tuple[int, int, bytes]] = []
    for byte, run in groupby(data):
        count = len(list(run))
        if count > 8:
            blocks.append((1, count, bytes([byte])))
        elif blocks and blocks[-1][0] == 0:
            blocks[-1] = (0, blocks[-1][1] + count, blocks[-1][2] + bytes([byte]) * count)
        else:
            blocks.append((0, count, bytes([byte]) * count))
    return blocks


def zstd_program(data: bytes, *options: str) -> bytes:
    """Return the frame made by the program zstd from the data."""
    command = ["zstd", "-q", "-c", "--no-check", f"--stream-size={len(data)}", *options]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def lz4(data: bytes) -> bytes:
    """Return one block of the LZ4 block format, with matches at the last equal four bytes."""
    block, done, at, seen = b"", 0, 0, {}
    while at < len(data) - 12:  # no match starts in the last 12 bytes
        found = seen.get(data[at : at + 4])
        seen[data[at : at + 4]] = at
        if found is None or at - found > 0xFFFF:
            at += 1
            continue
        length = 4
        while at + length < len(data) - 5 and data[found + length] == data[at + length]:
            length += 1
        block += lz4_sequence(data[done:at], at - found, length)
        done = at = at + length
    return block + lz4_sequence(data[done:])


def lz4_sequence(literals: bytes, offset: int = 0, length: int = 4) -> bytes:
    """Return a sequence of an LZ4 block; the last one has no match, and so no offset."""
    count, match = len(literals), length - 4
    sequence = bytes([min(count, 15) << 4 | min(match, 15)]) + lz4_rest(count) + literals
    return sequence + struct.pack("<H", offset) + lz4_rest(match) if offset else sequence


def lz4_rest(number: int) -> bytes:
    """Return the bytes after a length of four bits."""
    return b"" if number < 15 else b"\xff" * ((number - 15) // 255) + bytes([(number - 15) % 255])


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes that do not compress, the same on every machine."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


def text(size: int, seed: int = 0) -> bytes:
    """Return bytes that compress well, the same on every machine."""
    lines = b"".join(
        b"%d: line %d of a text\n" % (seed, number) for number in range(size // 20 + 1)
    )
    return lines[:size]


@dataclass
class Block:
    """A RAM block, its contents, and the offset, size and address of its pieces."""

    name: str
    contents: bytes
    pieces: list[tuple[int, int, int]] = field(default_factory=list)
    page_size: int = PAGE


@dataclass
class Attachment:
    """An attachment and its contents."""

    name: str
    contents: bytes
    encoding: int = RAW


@dataclass
class Packet:
    """A packet: its RAM, padded with zeros to whole pages, and its encoding."""

    number: int
    pages: list[bytes]
    kinds: list[int]
    encoding: int
    stored: bytes
    page_digests: bytes = b""
    sealed: dict = field(default_factory=dict)
    """Fields of its record that a sealed snapshot has."""

    @property
    def data(self) -> bytes:
        """The contents of the data pages."""
        return b"".join(page for page, kind in zip(self.pages, self.kinds, strict=True) if kind)


@dataclass
class Snapshot:
    """
    Describes a snapshot to build; dictionaries replace fields of a table by entry, then field.

    `encodings` sets a packet's encoding, otherwise the smallest; `kinds` sets kinds of pages, by
    packet and page; `stored` and `attachments_stored` set other stored bytes. A record has one
    field more, `filling`, for the bytes after its kinds. `page_digests` adds page digests, and
    `other_page_digests` replaces those of packets before their checksums. `sealing` signs or
    encrypts what the others have made. `patches` are written over the finished file, without new
    checksums; `file_size` cuts or extends it.
    """

    blocks: list[Block]
    layout: int = PACKED
    packet_size: int = PACKET
    window_bits: int = 15
    attachments: list[Attachment] = field(default_factory=list)
    encodings: dict[int, int] = field(default_factory=dict)
    kinds: dict[int, dict[int, int]] = field(default_factory=dict)
    stored: dict[int, bytes | Callable[[bytes], bytes]] = field(default_factory=dict)
    attachments_stored: dict[int, bytes] = field(default_factory=dict)
    superblock: dict = field(default_factory=dict)
    block_table: dict[int, dict] = field(default_factory=dict)
    piece_table: dict[int, dict] = field(default_factory=dict)
    records: dict[int, dict] = field(default_factory=dict)
    attachment_table: dict[int, dict] = field(default_factory=dict)
    page_digests: bool = False
    other_page_digests: dict[int, bytes] = field(default_factory=dict)
    sealing: Sealing | None = None
    patches: list[tuple[int, bytes]] = field(default_factory=list)
    file_size: int | None = None

    @property
    def image(self) -> bytes:
        """The RAM restored by a reader: all blocks end to end."""
        return b"".join(block.contents for block in self.blocks)

    @property
    def record_size(self) -> int:
        """Bytes of an index record."""
        return align(96 + self.packet_size // PAGE // 4, 8)

    def packets(self) -> list[Packet]:
        """Cut the RAM blocks into packets and encode each."""
        packets = []
        for block in self.blocks:
            for start in range(0, len(block.contents), self.packet_size):
                ram = block.contents[start : start + self.packet_size]
                packets.append(self.packet(len(packets), ram))
        return packets

    def packet(self, number: int, ram: bytes) -> Packet:
        """Encode one packet."""
        ram = ram.ljust(align(len(ram), PAGE), b"\0")
        pages = [ram[at : at + PAGE] for at in range(0, len(ram), PAGE)]
        pages += [bytes(PAGE)] * (self.packet_size // PAGE - len(pages))
        kinds = [DATA if any(page) else ZERO for page in pages]
        for page, kind in self.kinds.get(number, {}).items():
            kinds[page] = kind
        packet = Packet(number, pages, kinds, EMPTY, b"")
        choices = {
            EMPTY: b"",
            RAW: packet.data,
            DEFLATE: deflate(packet.data, self.window_bits),
        }
        if self.encodings.get(number) == ZSTD:
            choices[ZSTD] = zstd(packet.data)
        if self.encodings.get(number) == LZ4:
            choices[LZ4] = lz4(packet.data)
        smallest = DEFLATE if len(choices[DEFLATE]) < len(packet.data) else RAW
        packet.encoding = self.encodings.get(number, smallest if packet.data else EMPTY)
        packet.stored = choices.get(packet.encoding, packet.data)
        replaced = self.stored.get(number, packet.stored)
        packet.stored = replaced(packet.stored) if callable(replaced) else replaced
        return packet

    def build(self) -> bytes:
        """Return the file's bytes."""
        packets = [self.seal_packet(packet) for packet in self.packets()]
        blocks = self.build_blocks()
        key_table = self.sealing.build_key_table() if self.sealing else b""
        block_table_offset = PAGE + len(key_table)
        index_offset = align(block_table_offset + len(blocks), PAGE)
        page_digests_offset = align(index_offset + len(packets) * self.record_size, PAGE)
        page_digests = b"".join(packet.page_digests for packet in packets)
        data_offset = align(page_digests_offset + len(page_digests), PAGE)
        if self.layout == FIXED:
            data_offset = align(data_offset, self.packet_size)
        file = bytearray(data_offset)
        index = self.write_data(file, packets)
        data_size = len(file) - data_offset
        attachment_table = self.write_attachments(file)
        attachment_table_offset = len(file)
        file += attachment_table
        pieces = self.build_pieces()
        piece_table_offset = len(file)
        file += pieces
        superblock = self.build_superblock(
            file_size=len(file),
            encodings=sum({1 << packet.encoding for packet in packets}) & 0b111110,
            packet_count=len(packets),
            index_offset=index_offset,
            index_digest=hashlib.sha256(index).digest(),
            data_offset=data_offset,
            data_size=data_size,
            block_table_offset=block_table_offset,
            block_table_checksum=zlib.crc32(blocks),
            attachment_table_offset=attachment_table_offset,
            attachment_table_checksum=zlib.crc32(attachment_table),
            page_digests_offset=page_digests_offset if self.page_digests else 0,
            piece_table_offset=piece_table_offset,
            piece_count=len(pieces) // 32,
            piece_table_checksum=zlib.crc32(pieces),
            tables_digest=hashlib.sha256(blocks + attachment_table + pieces).digest(),
        )
        patches = [
            (0, superblock),
            (PAGE, key_table),
            (block_table_offset, blocks),
            (index_offset, index),
            (page_digests_offset, page_digests),
            *self.patches,
        ]
        for offset, data in patches:
            file[offset : offset + len(data)] = data
        length = len(file) if self.file_size is None else self.file_size
        return bytes(file[:length]).ljust(length, b"\0")

    def build_superblock(self, **computed: int | bytes) -> bytes:
        """Return the superblock."""
        superblock = {
            "magic": b"\x93SNAPMIG",
            "version_major": 1,
            "snapshot_id": bytes(range(16)),
            "created_ns": 1_700_000_000_000_000_000,
            "page_size": PAGE,
            "packet_size": self.packet_size,
            "record_size": self.record_size,
            "layout": self.layout,
            "window_bits": self.window_bits,
            "block_count": len(self.blocks),
            "attachment_count": len(self.attachments),
            **computed,
        }
        if self.sealing:
            superblock |= {"sealing": self.sealing.kind, "key_table_offset": PAGE}
        superblock |= self.superblock
        if self.sealing and "seal" not in superblock:
            unsealed = pack(SUPERBLOCK_FIELDS, superblock | {"checksum": 0})
            superblock["seal"] = self.sealing.superblock_seal(unsealed)
        superblock.setdefault("checksum", zlib.crc32(pack(SUPERBLOCK_FIELDS, superblock)))
        return pack(SUPERBLOCK_FIELDS, superblock)

    def build_blocks(self) -> bytes:
        """Return the block table."""
        table = b""
        for number, block in enumerate(self.blocks):
            values = {
                "name": block.name.encode(),
                "size": len(block.contents),
                "page_size": block.page_size,
            }
            table += pack(BLOCK_FIELDS, values | self.block_table.get(number, {}))
        return table

    def build_pieces(self) -> bytes:
        """Return the piece table."""
        pieces = sorted(
            (gpa, size, offset, number)
            for number, block in enumerate(self.blocks)
            for offset, size, gpa in block.pieces
        )
        table = b""
        for number, (gpa, size, offset, block_number) in enumerate(pieces):
            values = {"gpa": gpa, "size": size, "offset": offset, "block": block_number}
            table += pack(PIECE_FIELDS, values | self.piece_table.get(number, {}))
        return table

    def write_data(self, file: bytearray, packets: list[Packet]) -> bytes:
        """Append the slots to the file and return the index."""
        index = b""
        for packet in packets:
            offset = len(file)
            if self.layout == FIXED:
                file += bytes(self.packet_size)
                self.write_slot(file, offset, packet)
            else:
                file += packet.stored
            index += self.build_record(packet, offset if packet.stored else 0)
        return index

    def write_slot(self, file: bytearray, slot: int, packet: Packet) -> None:
        """Write a packet's stored bytes into its slot."""
        if packet.encoding != RAW:
            file[slot : slot + len(packet.stored)] = packet.stored
            return
        numbers = [number for number, kind in enumerate(packet.kinds) if kind]
        for at, number in enumerate(numbers):
            page = packet.stored[at * PAGE : (at + 1) * PAGE]
            file[slot + number * PAGE : slot + number * PAGE + len(page)] = page

    def contents_and_kinds(self, packet: Packet) -> tuple[list[bytes], list[int]]:
        """Return a packet's pages as in the guest, and their kinds."""
        return packet.pages, packet.kinds

    def digests_of(self, packet: Packet) -> bytes:
        """Return the digest of each of a packet's pages, empty without page digests."""
        if not self.page_digests:
            return b""
        pages = zip(*self.contents_and_kinds(packet), strict=True)
        digests = [xxhash.xxh3_128_digest(page) if kind else bytes(16) for page, kind in pages]
        return self.other_page_digests.get(packet.number, b"".join(digests))

    def seal_packet(self, packet: Packet) -> Packet:
        """Return the packet with its page digests, both sealed if the snapshot is."""
        number, sealing = packet.number, self.sealing
        digests = self.digests_of(packet)
        kinds = self.contents_and_kinds(packet)[1]
        if sealing is None or not any(kinds):
            return replace(packet, page_digests=digests)
        stored, name = packet.stored, f"packet {number}"
        fields = {"nonce": sealing.nonce(name)} | self.records.get(number, {})
        nonce = fields["nonce"]
        sealed = {"nonce": nonce}
        if stored:
            covered = packet_head(packet, fields) + packed_kinds(kinds)
            stored, sealed["tag"] = sealing.seal("packets", nonce, stored, covered)
            stored = sealing.changed(name, stored)
        if digests:
            covered = struct.pack("<Q", number)
            made = sealing.seal("page digests", nonce, digests, covered)
            digests, sealed["page_digests_tag"] = made
            digests = sealing.changed(f"page digests {number}", digests)
        return replace(packet, stored=stored, page_digests=digests, sealed=sealed)

    def build_record(self, packet: Packet, offset: int) -> bytes:
        """Return a packet's record."""
        values = {
            "packet": packet.number,
            "offset": offset,
            "stored_size": len(packet.stored),
            "encoding": packet.encoding,
        } | packet.sealed
        pages, kinds = self.contents_and_kinds(packet)
        contents = b"".join(page for page, kind in zip(pages, kinds, strict=True) if kind)
        if packet.stored:
            values["stored_checksum"] = zlib.crc32(packet.stored)
        if self.page_digests and any(kinds):
            values["page_digests_checksum"] = zlib.crc32(packet.page_digests)
        values["digest"] = xxhash.xxh3_128_digest(contents) if contents else bytes(16)
        values |= self.records.get(packet.number, {})
        if self.sealing and contents:
            values["digest"] = self.sealing.digest(values["nonce"], values["digest"])
        filling = values.pop("filling", b"")
        rest = (packed_kinds(kinds) + filling).ljust(self.record_size - 96, b"\0")
        values.setdefault("record_checksum", zlib.crc32(pack(RECORD_FIELDS, values) + rest))
        return pack(RECORD_FIELDS, values) + rest

    def write_attachments(self, file: bytearray) -> bytes:
        """Append the attachments' bytes to the file and return their table."""
        table = b""
        for number, attachment in enumerate(self.attachments):
            contents = attachment.contents
            stored = deflate(contents) if attachment.encoding == DEFLATE else contents
            stored = self.attachments_stored.get(number, stored)
            values = {
                "name": attachment.name.encode(),
                "offset": len(file),
                "stored_size": len(stored),
                "size": len(contents),
                "encoding": attachment.encoding,
                "sha256": hashlib.sha256(contents).digest(),
            }
            file += self.sealing.attachment(number, stored) if self.sealing else stored
            table += pack(ATTACHMENT_FIELDS, values | self.attachment_table.get(number, {}))
        return self.sealing.attachment_table(table) if self.sealing else table


def packet_head(packet: Packet, fields: dict) -> bytes:
    """Return the bytes of a record that a packet's tag covers, besides its kinds."""
    values = {
        "packet": packet.number,
        "stored_size": len(packet.stored),
        "encoding": packet.encoding,
        **fields,
    }
    record = pack(RECORD_FIELDS, {name: values[name] for name in RECORD_FIELDS if name in values})
    return record[:8] + record[16:24]


def packed_kinds(kinds: list[int]) -> bytes:
    """Return the kinds of pages as a record has them."""
    return bytes(
        kinds[page] | kinds[page + 1] << 2 | kinds[page + 2] << 4 | kinds[page + 3] << 6
        for page in range(0, len(kinds), 4)
    )


def root(file: bytes) -> bytes:
    """Return the root of a snapshot."""
    return hashlib.sha256(file[:PAGE]).digest()


SAME, DELTA = 2, 3


@dataclass
class Increment(Snapshot):
    """
    A snapshot built on `parent`.

    Pages equal to the parent's have kind 2 and are not stored, others are stored in full;
    `page_kinds` sets other kinds, by packet and page, such as 3 for a difference.
    """

    parent: Snapshot = field(kw_only=True)
    page_kinds: dict[int, dict[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Record the parent, and choose an id."""
        file = self.parent.build()
        names = {
            "snapshot_id": hashlib.sha256(b"child of" + file[32:48]).digest()[:16],
            "parent_id": file[32:48],
            "parent_root": root(file),
        }
        self.superblock = names | self.superblock

    def pages_of(self, snapshot: Snapshot, number: int) -> list[bytes]:
        """Return the pages of one of a snapshot's packets, padded to a full packet."""
        starts = [
            (block, start)
            for block in snapshot.blocks
            for start in range(0, len(block.contents), self.packet_size)
        ]
        block, start = starts[number] if number < len(starts) else (Block("", b""), 0)
        ram = block.contents[start : start + self.packet_size].ljust(self.packet_size, b"\0")
        return [ram[at : at + PAGE] for at in range(0, self.packet_size, PAGE)]

    def final_kinds(self, number: int) -> list[int]:
        """Return the kinds in the record."""
        pairs = zip(self.pages_of(self, number), self.pages_of(self.parent, number), strict=True)
        kinds = [
            ZERO if not any(ours) else SAME if ours == theirs else DATA for ours, theirs in pairs
        ]
        for page, kind in self.page_kinds.get(number, {}).items():
            kinds[page] = kind
        return kinds

    def packet(self, number: int, _ram: bytes) -> Packet:
        """Encode the stored part of one packet; its kinds are 1 for stored pages, else 0."""
        kinds = self.final_kinds(number)
        stored = b""
        for page, (ours, theirs) in enumerate(
            zip(self.pages_of(self, number), self.pages_of(self.parent, number), strict=True)
        ):
            base = theirs if kinds[page] == DELTA else bytes(PAGE)
            difference = bytes(a ^ b for a, b in zip(ours, base, strict=True))
            stored += difference if kinds[page] & 1 else bytes(PAGE)
        self.kinds[number] = {page: kind & 1 for page, kind in enumerate(kinds)}
        return super().packet(number, stored)

    def contents_and_kinds(self, packet: Packet) -> tuple[list[bytes], list[int]]:
        """Return a packet's pages as in the guest, and their kinds."""
        return self.pages_of(self, packet.number), self.final_kinds(packet.number)
