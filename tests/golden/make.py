"""
Make the golden snapshots: python -m tests.golden.make [--force].

`good/` holds snapshots that every reader must restore, `bad/` those that it must refuse. They are
packed with gzip, since a snapshot in the fixed layout is mostly holes. `good/sha256sums` has the
SHA-256 of each image; `bad/refusals.tsv` has for each file the exit code, which check finds it, and
a word of the message.

Those of sealed snapshots are in `make_sealed`. The files are committed, so that a change of the
builder or of a compressor does not change what is tested. Make them again only when the format
changes. That takes the program zstd.
"""

import argparse
import gzip
import struct
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from xxhash import xxh3_128_digest

from tests.support.builders import (
    DATA,
    DEFLATE,
    EMPTY,
    FIXED,
    LZ4,
    PACKET,
    PAGE,
    RAW,
    ZSTD,
    Attachment,
    Block,
    Snapshot,
    deflate,
    lz4,
    lz4_sequence,
    noise,
    text,
    zstd,
    zstd_program,
)

HERE = Path(__file__).parent
CORRUPT, UNSUPPORTED = 3, 4


def pages(*contents: bytes) -> bytes:
    """Return pages that start with the contents; the rest of each is zero."""
    return b"".join(content.ljust(PAGE, b"\0") for content in contents)


def stored_block_first(data: bytes) -> bytes:
    """Return a deflate stream whose first block is not compressed."""
    size = 1000
    return struct.pack("<BHH", 0, size, size ^ 0xFFFF) + data[:size] + deflate(data[size:])


MIXED = (
    pages(b"first", b"", text(PAGE)).ljust(PACKET, b"\0")  # deflate
    + bytes(PACKET)  # empty
    + pages(b"", b"", b"", noise(PAGE)).ljust(PACKET, b"\0")  # raw
)
ALL = (  # a packet of each encoding
    pages(b"first", b"", text(PAGE)).ljust(PACKET, b"\0")
    + bytes(PACKET)
    + pages(b"", b"", b"", noise(PAGE)).ljust(PACKET, b"\0")
    + text(PACKET, 3)
    + text(PACKET, 4)
    + text(3 * PAGE + 100, 5)
)
ALL_ENCODINGS = {
    "encodings": {0: DEFLATE, 1: EMPTY, 2: RAW, 3: ZSTD, 4: LZ4, 5: ZSTD},
    "stored": {3: zstd_program(text(PACKET, 3))},
}
LARGEST_OFFSET = (noise(0xFFFF) * 2)[: 24 * PAGE]
TAIL = text(PACKET + 3 * PAGE + 100)
TAILS = {0: text(PACKET), 1: text(PACKET + 3 * PAGE + 100)[PACKET:].ljust(4 * PAGE, b"\0")}
FAR = (noise(1000) + text(5000)) * 2  # repeats itself beyond a window of 4 KiB

GOOD = {
    "empty-packets": Snapshot([Block("ram", bytes(3 * PACKET))]),
    "empty-packets-fixed": Snapshot([Block("ram", bytes(3 * PACKET))], layout=FIXED),
    "raw": Snapshot([Block("ram", noise(PAGE) + bytes(PAGE) + noise(PAGE, 1))]),
    "raw-fixed-zero-pages-between": Snapshot(
        [Block("ram", bytes(PACKET) + pages(b"", noise(PAGE), b"", noise(PAGE, 1)))], layout=FIXED
    ),
    "deflate": Snapshot([Block("ram", text(PACKET))]),
    "deflate-fixed": Snapshot([Block("ram", text(PACKET))], layout=FIXED),
    "deflate-stored-block-first": Snapshot(
        [Block("ram", text(2 * PAGE))], stored={0: stored_block_first(text(2 * PAGE))}
    ),
    "mixed": Snapshot([Block("ram", MIXED)]),
    "mixed-fixed": Snapshot([Block("ram", MIXED)], layout=FIXED),
    "several-blocks": Snapshot(
        [
            Block("pc.ram", MIXED, [(0, len(MIXED), 0)]),
            Block("vga.vram", text(2 * PAGE), [(0, 2 * PAGE, 0xFD000000)]),
            Block("bloc de mémoire", pages(b"huge"), page_size=2 << 20),
            Block("x" * 255, bytes(PAGE), page_size=1 << 30),
        ]
    ),
    "pieces": Snapshot(
        [
            Block("high", text(3 * PAGE), [(PAGE, 2 * PAGE, 1 << 32), (0, PAGE, 0x100123)]),
            Block("pc.ram", MIXED[: 4 * PAGE + 5], [(0, 2 * PAGE, 0), (4 * PAGE, 5, 2 * PAGE)]),
            Block("rom", text(PAGE), [(0, PAGE, 0xFFFFF000), (0, PAGE, 0xFF000)]),
        ],
        superblock={"machine": 62, "machine_class": 2, "machine_data": 1},
    ),
    "pieces-up-to-2-to-56": Snapshot(
        [Block("ram", pages(b"1"), [(0, PAGE, (1 << 56) - PAGE)])],
        layout=FIXED,
        superblock={"machine": 65535, "machine_class": 1, "machine_data": 2},
    ),
    "several-blocks-fixed-short-tails": Snapshot(
        [Block("a", text(PACKET + 1)), Block("b", text(1)), Block("c", text(PAGE + 7))],
        layout=FIXED,
    ),
    "deflate-short-tail": Snapshot([Block("ram", text(PACKET + 3 * PAGE + 100))]),
    "raw-short-tail": Snapshot([Block("ram", text(PAGE + 100))], encodings={0: RAW}),
    "raw-short-tail-fixed": Snapshot(
        [Block("ram", text(PAGE + 100))], layout=FIXED, encodings={0: RAW}
    ),
    "one-byte": Snapshot([Block("ram", b"1")]),
    "zero-page-as-data": Snapshot(
        [Block("ram", pages(b"1", b"", b"3"))], kinds={0: {1: DATA}}, encodings={0: RAW}
    ),
    "attachments": Snapshot(
        [Block("ram", pages(b"1"))],
        attachments=[
            Attachment("device-state", noise(1000)),
            Attachment("cmdline", text(20000), DEFLATE),
            Attachment("empty", b""),
        ],
    ),
    "window-4k": Snapshot([Block("ram", FAR)], window_bits=12),
    "window-512": Snapshot([Block("ram", FAR)], window_bits=9),
    "packets-of-4m": Snapshot([Block("ram", bytes(5 << 20) + text(PAGE))], packet_size=4 << 20),
    "version-minor-7": Snapshot(
        [Block("ram", pages(b"1"))], superblock={"version_minor": 7, "compatible": 1 << 63 | 1}
    ),
    "unused-bytes-set": Snapshot(
        [Block("ram", pages(b"1").ljust(3 * PACKET, b"\0"))],
        block_table={0: {"unused": b"?" * 48}},
        records={1: {"stored_checksum": 77, "digest": b"?" * 16}},
        attachments=[Attachment("note", b"text")],
        attachment_table={0: {"unused": b"?" * 7, "unused_rest": b"?" * 64}},
        patches=[(PAGE + 320, b"?" * 100), (2 * PAGE + 3 * 104, b"?" * 100)],
    ),
    "unused-slot-bytes-set": Snapshot(
        [Block("ram", pages(b"1") + bytes(2 * PACKET))],
        layout=FIXED,
        patches=[(PACKET + 1000, b"?" * 100)],
    ),
    "zstd": Snapshot(
        [Block("ram", TAIL)],
        encodings=dict.fromkeys(TAILS, ZSTD),
        stored={number: zstd_program(data, "-3") for number, data in TAILS.items()},
    ),
    "zstd-fixed": Snapshot(
        [Block("ram", TAIL)],
        layout=FIXED,
        encodings=dict.fromkeys(TAILS, ZSTD),
        stored={number: zstd_program(data, "-19") for number, data in TAILS.items()},
    ),
    "zstd-fast": Snapshot(
        [Block("ram", text(PACKET))],
        encodings={0: ZSTD},
        stored={0: zstd_program(text(PACKET), "--fast=7")},
    ),
    "zstd-with-checksum": Snapshot(
        [Block("ram", text(PACKET))],
        encodings={0: ZSTD},
        stored={0: zstd_program(text(PACKET), "--check")},
    ),
    "zstd-raw-and-repeated-blocks": Snapshot(
        [Block("ram", pages(b"1", b"3"))], encodings={0: ZSTD}
    ),
    "zstd-window-of-8m": Snapshot(
        [Block("ram", pages(b"1", b"3"))],
        encodings={0: ZSTD},
        stored={0: zstd(pages(b"1", b"3"), window=13 << 3)},
    ),
    "zstd-packets-of-4m": Snapshot(
        [Block("ram", noise(PAGE).ljust(4 << 20, b"1") + text(PAGE + 1))],
        packet_size=4 << 20,
        encodings={0: ZSTD},
        stored={0: zstd_program(noise(PAGE).ljust(4 << 20, b"1"), "-1")},
    ),
    "lz4": Snapshot([Block("ram", TAIL)], encodings=dict.fromkeys(TAILS, LZ4)),
    "lz4-fixed": Snapshot([Block("ram", TAIL)], layout=FIXED, encodings=dict.fromkeys(TAILS, LZ4)),
    "lz4-long-lengths": Snapshot(
        [Block("ram", noise(5 * PAGE) + b"1" * 11 * PAGE)], encodings={0: LZ4}
    ),
    "lz4-largest-offset": Snapshot(
        [Block("ram", LARGEST_OFFSET)],
        packet_size=2 * PACKET,
        encodings={0: LZ4},
        stored={
            0: lz4_sequence(noise(0xFFFF), 0xFFFF, 24 * PAGE - 0xFFFF - 8)
            + lz4_sequence(LARGEST_OFFSET[-8:])
        },
    ),
    "lz4-packets-of-4m": Snapshot(
        [Block("ram", noise(PAGE).ljust(4 << 20, b"1") + text(PAGE + 1))],
        packet_size=4 << 20,
        encodings={0: LZ4},
    ),
    "all-encodings": Snapshot([Block("ram", ALL)], **ALL_ENCODINGS),
    "all-encodings-fixed": Snapshot([Block("ram", ALL)], layout=FIXED, **ALL_ENCODINGS),
    "with-parent": Snapshot(
        [Block("ram", pages(b"1"))],
        superblock={"parent_id": b"p" * 16, "parent_root": b"d" * 32},
    ),
    "page-digests": Snapshot([Block("ram", ALL)], page_digests=True, encodings={4: LZ4}),
    "page-digests-fixed": Snapshot([Block("ram", MIXED)], layout=FIXED, page_digests=True),
    "page-digests-short-tails": Snapshot(
        [Block("a", text(PACKET + 1)), Block("b", text(1)), Block("c", bytes(PAGE + 7))],
        page_digests=True,
    ),
    "page-digests-packets-of-4m": Snapshot(
        [Block("ram", bytes(5 << 20) + text(PAGE))], packet_size=4 << 20, page_digests=True
    ),
    "page-digests-unused-bytes-set": Snapshot(
        [Block("ram", pages(b"1").ljust(3 * PACKET, b"\0"))],
        page_digests=True,
        other_page_digests={1: b"?" * 256},
        patches=[(3 * PAGE + 3 * 256, b"?" * 100)],
    ),
    "page-digests-of-a-zero-page-as-data": Snapshot(
        [Block("ram", pages(b"1", b"", b"3"))], kinds={0: {1: DATA}}, page_digests=True
    ),
    "fixed-rest-of-stream-not-zero": Snapshot(
        [Block("ram", text(PACKET))], layout=FIXED, patches=[(2 * PACKET - 1, b"?")]
    ),
}

RAM = pages(b"1", b"", b"3").ljust(PACKET, b"\0") + pages(b"4", b"5")[:-100]
CONTENTS = pages(b"1", b"3")  # of the data pages of packet 0
BLOCK_TABLE_AT, INDEX_AT, DATA_AT = PAGE, 2 * PAGE, 3 * PAGE  # in a packed snapshot of RAM
DIGESTS_AT = 3 * PAGE  # in one with page digests
RECORD_SIZE = 104
PLACED_STORED = len(deflate(pages(b"1", b"2")))


def ram(**changes: Any) -> Snapshot:
    """Return a snapshot of RAM with two packets."""
    return Snapshot([Block("ram", RAM)], **changes)


def with_hole(**changes: Any) -> Snapshot:
    """Return a snapshot whose packet 2 is empty."""
    return Snapshot([Block("ram", RAM), Block("hole", bytes(PACKET))], **changes)


def superblock(**fields: Any) -> Snapshot:
    """Return a snapshot with other fields in the superblock."""
    return ram(superblock=fields)


def digested(**changes: Any) -> Snapshot:
    """Return a snapshot of RAM with page digests, which begin at DIGESTS_AT."""
    return ram(page_digests=True, **changes)


def digests(*contents: bytes) -> bytes:
    """Return the digests of pages, and zeros for the rest of a packet."""
    found = [xxh3_128_digest(page) if page else bytes(16) for page in contents]
    return b"".join(found).ljust(PACKET // PAGE * 16, b"\0")


def record(**fields: Any) -> Snapshot:
    """Return a snapshot with other fields in the record of packet 0."""
    return ram(records={0: fields})


def block(**fields: Any) -> Snapshot:
    """Return a snapshot with other fields in the second entry of the block table."""
    return Snapshot([Block("ram", RAM), Block("b", bytes(PAGE))], block_table={1: fields})


def placed(**changes: Any) -> Snapshot:
    """Return a snapshot with a RAM block in two pieces."""
    block = Block("ram", pages(b"1", b"2"), [(0, PAGE, 0), (PAGE, PAGE, 1 << 32)])
    return Snapshot([block], **changes)


def piece(**fields: Any) -> Snapshot:
    """Return a snapshot with other fields in the entry of its second piece."""
    return placed(piece_table={1: fields})


def attached(**changes: Any) -> Snapshot:
    """Return a snapshot with two attachments."""
    attachments = [Attachment("a", b"text"), Attachment("b", text(1000), DEFLATE)]
    return ram(attachments=attachments, **changes)


def attachment(**fields: Any) -> Snapshot:
    """Return a snapshot with other fields in the entry of its second attachment."""
    return attached(attachment_table={1: fields})


def stored(contents: bytes, **changes: Any) -> Snapshot:
    """Return a snapshot with these stored bytes of packet 0."""
    return ram(stored={0: contents}, **changes)


def zstd_stored(contents: bytes) -> Snapshot:
    """Return a snapshot with these stored bytes of packet 0, as zstd."""
    return stored(contents, encodings={0: ZSTD})


def lz4_stored(contents: bytes) -> Snapshot:
    """Return a snapshot with these stored bytes of packet 0, as LZ4."""
    return stored(contents, encodings={0: LZ4})


# What every reader refuses: the exit code, which check finds it ("open" before any packet,
# "packets" while they are read, "verify" only where all of the file is checked), a word of the
# message, and the files.
BAD = [
    # step 1
    (CORRUPT, "open", "not a snapshot", {
        "empty-file": ram(file_size=0),
        "text-file": ram(patches=[(0, b"#!/bin/sh\n".ljust(PAGE, b"#"))]),
        "no-superblock-yet": ram(patches=[(0, bytes(PAGE))]),
        "other-magic": superblock(magic=b"\x93SNAPMIH"),
    }),
    (CORRUPT, "open", "a snapshot", {"shorter-than-a-superblock": ram(file_size=PAGE - 1)}),
    (UNSUPPORTED, "open", "version", {
        "version-major-0": superblock(version_major=0),
        "version-major-2": superblock(version_major=2),
        "version-major-2-other-checksum": superblock(version_major=2, checksum=1),
        "version-major-2-other-fields": superblock(version_major=2, packet_size=7, reserved=1),
    }),
    (CORRUPT, "open", "checksum", {
        "superblock-checksum-wrong": superblock(checksum=1),
        "superblock-last-byte-wrong": ram(patches=[(PAGE - 1, b"1")]),
        "superblock-features-with-wrong-checksum": superblock(checksum=1, incompatible=1),
    }),
    # step 2
    (UNSUPPORTED, "open", "feature", {
        "incompatible-bit-0": superblock(incompatible=1),
        "incompatible-bit-63": superblock(incompatible=1 << 63),
        "incompatible-bit-with-new-field": superblock(incompatible=1, reserved_rest=b"new"),
    }),
    (UNSUPPORTED, "open", "encodings", {
        "encodings-bit-0": superblock(encodings=1 << 3 | 1),
        "encodings-bit-6": superblock(encodings=1 << 3 | 1 << 6),
        "encodings-bit-63": superblock(encodings=1 << 3 | 1 << 63),
    }),
    (UNSUPPORTED, "open", "layout", {
        "layout-0": superblock(layout=0),
        "layout-3": superblock(layout=3),
    }),
    (UNSUPPORTED, "open", "sealing", {
        "sealing-3": superblock(sealing=3, key_table_offset=PAGE),
        "sealing-255": superblock(sealing=255, key_table_offset=PAGE),
    }),
    (UNSUPPORTED, "open", "page", {
        "page-size-0": superblock(page_size=0),
        "page-size-16384": superblock(page_size=16384),
    }),
    (CORRUPT, "open", "reserved", {
        "superblock-reserved-set": superblock(reserved=1),
        "superblock-reserved-1-set": superblock(reserved_1=b"\0\0\1"),
        "superblock-reserved-rest-set": superblock(reserved_rest=bytes(3759) + b"1"),
    }),
    (CORRUPT, "open", "packet size", {
        "packet-size-0": superblock(packet_size=0),
        "packet-size-32k": superblock(packet_size=32768),
        "packet-size-192k": superblock(packet_size=3 * PACKET),
        "packet-size-8m": superblock(packet_size=8 << 20),
    }),
    (CORRUPT, "open", "record size", {
        "record-size-0": superblock(record_size=0),
        "record-size-of-larger-packets": superblock(record_size=112),
    }),
    (CORRUPT, "open", "window", {
        "window-bits-8": superblock(window_bits=8),
        "window-bits-16": superblock(window_bits=16),
    }),
    (CORRUPT, "open", "number of RAM blocks", {
        "block-count-0": superblock(block_count=0),
        "block-count-4097": superblock(block_count=4097),
    }),
    (CORRUPT, "open", "number of attachments", {
        "attachment-count-4097": superblock(attachment_count=4097),
    }),
    (CORRUPT, "open", "number of pieces", {
        "piece-count-65537": superblock(piece_count=65537),
    }),
    (CORRUPT, "open", "machine", {
        "machine-class-0": superblock(machine=62, machine_data=1),
        "machine-class-3": superblock(machine=62, machine_class=3, machine_data=1),
        "machine-data-0": superblock(machine=62, machine_class=2),
        "machine-data-3": superblock(machine=62, machine_class=2, machine_data=3),
        "machine-class-without-machine": superblock(machine_class=1),
        "machine-data-without-machine": superblock(machine_data=1),
    }),
    (CORRUPT, "open", "seal", {
        "key-table-without-sealing": superblock(key_table_offset=PAGE),
        "seal-without-sealing": superblock(seal=bytes(31) + b"1"),
    }),
    # step 3
    (CORRUPT, "open", "file has", {
        "file-cut": ram(file_size=DATA_AT + 1),
        "file-cut-after-superblock": ram(file_size=PAGE),
        "file-grown": ram(file_size=5 * PAGE),
    }),
    (CORRUPT, "open", "block table", {
        "block-table-in-superblock": superblock(block_table_offset=PAGE - 1),
    }),
    (CORRUPT, "open", "index", {
        "block-table-larger-than-file": superblock(block_count=4096),
        "index-in-block-table": superblock(index_offset=BLOCK_TABLE_AT),
    }),
    (CORRUPT, "open", "page digest", {
        "page-digests-in-superblock": digested(superblock={"page_digests_offset": 1}),
        "page-digests-in-index": digested(superblock={"page_digests_offset": INDEX_AT}),
    }),
    (CORRUPT, "open", "data", {
        "page-digests-in-data": digested(superblock={"page_digests_offset": DIGESTS_AT + PAGE}),
        "page-digests-across-data": digested(
            superblock={"page_digests_offset": DIGESTS_AT + PAGE - 256}
        ),
        "page-digests-after-end": superblock(page_digests_offset=1 << 40),
        "page-digests-end-beyond-64-bits": superblock(page_digests_offset=2**64 - 256),
        "page-digests-without-room": superblock(page_digests_offset=DATA_AT),
        "index-larger-than-file": superblock(packet_count=1 << 50),
        "index-size-beyond-64-bits": superblock(packet_count=2**64 // RECORD_SIZE + 1),
        "data-in-index": superblock(data_offset=INDEX_AT),
    }),
    (CORRUPT, "open", "attachment table", {
        "data-larger-than-file": superblock(data_size=1 << 50),
        "data-end-beyond-64-bits": superblock(data_size=2**64 - DATA_AT),
        "attachment-table-in-data": superblock(attachment_table_offset=DATA_AT),
    }),
    (CORRUPT, "open", "piece table", {
        "attachment-table-after-end": superblock(attachment_table_offset=5 * PAGE),
        "attachment-table-across-end": superblock(attachment_count=1),
        "piece-table-in-attachment-table": attached(superblock={"piece_table_offset": DATA_AT}),
    }),
    (CORRUPT, "open", "end", {
        "piece-table-after-end": superblock(piece_table_offset=5 * PAGE),
        "piece-table-across-end": superblock(piece_count=1),
        "piece-table-end-beyond-64-bits": superblock(piece_table_offset=2**64 - 1, piece_count=1),
    }),
    # step 4
    (CORRUPT, "open", "block table's checksum", {
        "block-table-checksum-wrong": superblock(block_table_checksum=1),
        "block-table-byte-wrong": ram(patches=[(BLOCK_TABLE_AT + 300, b"?")]),
    }),
    (CORRUPT, "open", "name", {
        "block-name-empty": block(name=b""),
        "block-name-not-utf-8": block(name=b"\xff"),
        "block-name-surrogate": block(name=b"\xed\xa0\x80"),
        "block-name-256-bytes": block(name=b"x" * 256),
        "block-name-bytes-after-zero": block(name=b"x\0y"),
        "block-name-twice": block(name=b"ram"),
        "attachment-name-empty": attachment(name=b""),
        "attachment-name-not-utf-8": attachment(name=b"\xff"),
        "attachment-name-256-bytes": attachment(name=b"x" * 256),
        "attachment-name-bytes-after-zero": attachment(name=b"x\0y"),
        "attachment-name-twice": attachment(name=b"a"),
    }),
    (CORRUPT, "open", "RAM block 'b' has 0 bytes", {"block-size-0": block(size=0)}),
    (CORRUPT, "open", "RAM blocks have more", {
        "block-sizes-beyond-2-to-56": block(size=1 << 56),
        "block-sizes-beyond-64-bits": block(size=2**64 - len(RAM)),
    }),
    (CORRUPT, "open", "RAM block 'b' has pages", {
        "block-page-size-0": block(page_size=0),
        "block-page-size-2048": block(page_size=2048),
        "block-page-size-12288": block(page_size=12288),
    }),
    (CORRUPT, "open", "packets", {
        "packet-count-too-small": superblock(packet_count=1),
        "packet-count-too-large": superblock(packet_count=3),
    }),
    (CORRUPT, "open", "data has", {
        "fixed-data-size-too-small": ram(layout=FIXED, superblock={"data_size": PACKET}),
    }),
    (CORRUPT, "open", "piece table's checksum", {
        "piece-table-checksum-wrong": placed(superblock={"piece_table_checksum": 1}),
        "piece-table-byte-wrong": placed(patches=[(DATA_AT + PLACED_STORED, b"?")]),
    }),
    (CORRUPT, "open", "piece", {
        "piece-of-no-block": piece(block=1),
        "piece-reserved-set": piece(reserved=1),
        "piece-of-nothing": piece(size=0),
        "piece-longer-than-its-block": piece(size=3 * PAGE),
        "piece-behind-its-block": piece(offset=2 * PAGE),
        "piece-end-beyond-64-bits": piece(offset=2**64 - PAGE, size=PAGE),
        "piece-offset-in-a-page": piece(offset=PAGE + 1, size=PAGE - 1),
        "piece-size-of-half-a-page": piece(offset=0, size=PAGE // 2),
        "piece-beyond-2-to-56": piece(gpa=(1 << 56) - PAGE + 1),
        "piece-address-of-64-bits": piece(gpa=2**64 - 1),
        "pieces-out-of-order": placed(piece_table={0: {"gpa": 1 << 33}}),
        "pieces-overlap": placed(piece_table={1: {"gpa": PAGE - 1}}),
        "pieces-at-one-address": placed(piece_table={1: {"gpa": 0}}),
    }),
    # step 5
    (CORRUPT, "open", "attachment table's checksum", {
        "attachment-table-checksum-wrong": attached(superblock={"attachment_table_checksum": 1}),
    }),
    (CORRUPT, "open", "attachment 'b'", {
        "attachment-in-data": attachment(offset=DATA_AT),
        "attachment-in-its-table": attachment(offset=DATA_AT + 256),
        "attachment-after-end": attachment(offset=1 << 40),
        "attachment-end-beyond-64-bits": attachment(offset=2**64 - 1),
        "attachment-larger-than-1g": attached(
            attachment_table={1: {"size": (1 << 30) + 1}},
            attachments_stored={1: bytes((1 << 30) // 1032 + 10)},
        ),
        "attachment-larger-than-deflate-gives": attachment(size=1032 * 1000),
        "attachment-raw-of-another-size": attachment(encoding=RAW),
    }),
    (UNSUPPORTED, "verify", "attachment 'b'", {
        "attachment-encoding-0": attachment(encoding=0),
        "attachment-encoding-1": attachment(encoding=EMPTY),
        "attachment-encoding-4": attachment(encoding=4),
    }),
    (CORRUPT, "open", "tables", {
        "tables-digest-wrong": superblock(tables_digest=b"1" * 32),
        "tables-digest-zero": superblock(tables_digest=bytes(32)),
        "tables-digest-without-the-attachments": attached(
            superblock={"tables_digest": sha256(ram().build_blocks()).digest()}
        ),
    }),
    # an attachment's contents
    (CORRUPT, "verify", "attachment 'b'", {
        "attachment-sha256-wrong": attachment(sha256=b"1" * 32),
        "attachment-stream-invalid": attached(attachments_stored={1: b"\xff" * 100}),
        "attachment-stream-cut": attached(attachments_stored={1: deflate(text(1000))[:-10]}),
        "attachment-stream-too-short": attached(attachments_stored={1: deflate(text(999))}),
        "attachment-stream-too-long": attached(attachments_stored={1: deflate(text(1001))}),
        "attachment-bytes-after-stream": attached(
            attachments_stored={1: deflate(text(1000)) + b"\0"}
        ),
    }),
    # step 6
    (CORRUPT, "packets", "checksum", {
        "record-checksum-wrong": record(record_checksum=1),
    }),
    (CORRUPT, "packets", "index", {"record-byte-wrong": ram(patches=[(INDEX_AT + 96, b"?")])}),
    (CORRUPT, "packets", "is of packet 1", {"record-of-another-packet": record(packet=1)}),
    (UNSUPPORTED, "packets", "encoding", {
        "encoding-0": record(encoding=0),
        "encoding-6": record(encoding=6),
        "encoding-255": record(encoding=255),
    }),
    (UNSUPPORTED, "packets", "reserved", {
        "record-flags-set": record(flags=1),
        "record-reserved-1-set": record(reserved_1=1),
        "record-nonce-set": record(nonce=bytes(11) + b"1"),
        "record-tag-set": record(tag=b"1"),
        "record-page-digests-tag-set": record(page_digests_tag=bytes(15) + b"1"),
        "record-page-digests-checksum-without-them": record(page_digests_checksum=1),
        "record-of-empty-packet-page-digests-checksum-set": with_hole(
            page_digests=True, records={2: {"page_digests_checksum": 1}}
        ),
        "record-filling-set": record(filling=bytes(3) + b"1"),
        "record-of-empty-packet-tag-set": with_hole(records={2: {"tag": b"1"}}),
    }),
    (CORRUPT, "packets", "parent", {
        "kind-same-as-parent": ram(kinds={0: {1: 2}}),
        "kind-delta-against-parent": ram(kinds={0: {1: 3}}),
        "kind-same-as-parent-in-empty-packet": with_hole(
            kinds={2: {1: 2}}, encodings={2: EMPTY}
        ),
    }),
    (CORRUPT, "packets", "pages after the end", {
        "data-page-after-block": ram(kinds={1: {2: DATA}}),
        "data-page-after-block-in-last-place": ram(kinds={1: {15: DATA}}),
    }),
    (CORRUPT, "packets", "stored size", {
        "empty-with-data-pages": ram(encodings={0: EMPTY}),
        "empty-with-stored-bytes": with_hole(stored={2: b"1"}),
        "raw-without-data-pages": with_hole(encodings={2: RAW}),
        "raw-stored-size-too-small": stored(CONTENTS[:-1], encodings={0: RAW}),
        "raw-stored-size-too-large": stored(CONTENTS + b"\0", encodings={0: RAW}),
        "deflate-without-data-pages": with_hole(encodings={2: DEFLATE}),
        "zstd-without-data-pages": with_hole(encodings={2: ZSTD}),
        "zstd-stored-size-0": zstd_stored(b""),
        "zstd-stored-size-not-smaller": zstd_stored(zstd(CONTENTS).ljust(2 * PAGE, b"\0")),
        "lz4-without-data-pages": with_hole(encodings={2: LZ4}),
        "lz4-stored-size-0": lz4_stored(b""),
        "lz4-stored-size-not-smaller": lz4_stored(lz4_sequence(CONTENTS)),
        "deflate-stored-size-0": stored(b""),
        "deflate-stored-size-not-smaller": stored(deflate(CONTENTS).ljust(2 * PAGE, b"\0")),
    }),
    (CORRUPT, "packets", "stored bytes are at", {
        "empty-with-offset": with_hole(records={2: {"offset": DATA_AT}}),
        "offset-before-data": record(offset=DATA_AT - 1),
        "offset-after-data": record(offset=DATA_AT + 1000),
        "offset-beyond-64-bits": record(offset=2**64 - 1),
        "offset-0-with-stored-bytes": record(offset=0),
        "fixed-offset-of-another-slot": ram(layout=FIXED, records={0: {"offset": 2 * PACKET}}),
        "fixed-offset-in-slot": ram(layout=FIXED, records={1: {"offset": 2 * PACKET + 1}}),
        "fixed-raw-offset-of-first-page": Snapshot(
            [Block("ram", pages(b"", b"2"))],
            layout=FIXED,
            encodings={0: RAW},
            records={0: {"offset": PACKET + PAGE}},
        ),
    }),
    # step 7
    (CORRUPT, "packets", "checksum of the stored bytes", {
        "stored-checksum-wrong": record(stored_checksum=1),
        "stored-byte-wrong": ram(patches=[(DATA_AT + 5, b"?")]),
        "zstd-stored-byte-wrong": ram(encodings={0: ZSTD}, patches=[(DATA_AT + 5, b"?")]),
        "lz4-stored-byte-wrong": ram(encodings={0: LZ4}, patches=[(DATA_AT + 5, b"?")]),
        "fixed-raw-byte-wrong": ram(
            layout=FIXED, encodings={0: RAW}, patches=[(PACKET + 2 * PAGE, b"?")]
        ),
    }),
    # step 8
    (CORRUPT, "packets", "stream", {
        "stream-invalid": stored(b"\xff" * 100),
        "stream-cut": stored(deflate(CONTENTS)[:-2]),
        "stream-too-short": stored(deflate(CONTENTS[:-1])),
        "stream-too-long": stored(deflate(CONTENTS + b"\0")),
        "stream-much-too-long": stored(deflate(bytes(8_000_000))),
        "stream-in-zlib-wrapper": stored(b"\x78\x9c" + deflate(CONTENTS) + bytes(4)),
        "bytes-after-stream": stored(deflate(CONTENTS) + b"\0"),
    }),
    (CORRUPT, "packets", "digest", {
        "digest-wrong": record(digest=b"1" * 16),
        "digest-of-raw-wrong": ram(encodings={0: RAW}, records={0: {"digest": b"1" * 16}}),
        "stream-of-other-contents": stored(deflate(pages(b"1", b"2"))),
        "zstd-digest-wrong": ram(encodings={0: ZSTD}, records={0: {"digest": b"1" * 16}}),
        "zstd-of-other-contents": zstd_stored(zstd(pages(b"1", b"2"))),
        "lz4-digest-wrong": ram(encodings={0: LZ4}, records={0: {"digest": b"1" * 16}}),
        "lz4-of-other-contents": lz4_stored(lz4(pages(b"1", b"2"))),
    }),
    (CORRUPT, "packets", "zstd frame", {
        "zstd-announces-a-byte-less": zstd_stored(zstd(CONTENTS, size=2 * PAGE - 1)),
        "zstd-announces-a-byte-more": zstd_stored(zstd(CONTENTS, size=2 * PAGE + 1)),
        "zstd-announces-nothing": zstd_stored(zstd(CONTENTS, size=0)),
        "zstd-announces-2-to-40": zstd_stored(zstd(CONTENTS, size=1 << 40)),
        "zstd-announces-2-to-63": zstd_stored(zstd(CONTENTS, size=1 << 63)),
        "zstd-announces-2-to-64-less-1": zstd_stored(zstd(CONTENTS, size=(1 << 64) - 1)),
        "zstd-announces-2-to-64-less-2": zstd_stored(zstd(CONTENTS, size=(1 << 64) - 2)),
        "zstd-announces-no-size": zstd_stored(zstd(CONTENTS, size=-1)),
        "zstd-a-byte-too-short": zstd_stored(zstd(CONTENTS[:-1], size=2 * PAGE)),
        "zstd-a-byte-too-long": zstd_stored(zstd(CONTENTS + b"\0", size=2 * PAGE)),
        "zstd-much-too-long": zstd_stored(zstd(bytes(1 << 17) * 50, size=2 * PAGE)),
        "zstd-cut": zstd_stored(zstd(CONTENTS)[:-1]),
        "zstd-cut-in-its-header": zstd_stored(zstd(CONTENTS)[:7]),
        "zstd-of-one-byte": zstd_stored(b"\x28"),
        "zstd-without-a-last-block": zstd_stored(zstd(CONTENTS)[:13]),
        "zstd-bytes-after-it": zstd_stored(zstd(CONTENTS) + b"\0"),
        "zstd-two-frames": zstd_stored(zstd(CONTENTS) + zstd(CONTENTS)),
        "zstd-two-frames-of-a-page": zstd_stored(zstd(CONTENTS[:PAGE]) + zstd(CONTENTS[PAGE:])),
        "zstd-second-frame-empty": zstd_stored(zstd(CONTENTS) + zstd_program(b"")),
        "zstd-skippable-frame-first": zstd_stored(b"\x50\x2a\x4d\x18\0\0\0\0" + zstd(CONTENTS)),
        "zstd-skippable-frame-last": zstd_stored(zstd(CONTENTS) + b"\x50\x2a\x4d\x18\0\0\0\0"),
        "zstd-invalid": zstd_stored(b"\xff" * 100),
        "zstd-block-of-reserved-type": zstd_stored(zstd(CONTENTS)[:13] + b"\7\0\0"),
        "zstd-reserved-bit-set": zstd_stored(b"\x28\xb5\x2f\xfd\xe8" + zstd(CONTENTS)[5:]),
        "zstd-of-a-dictionary": zstd_stored(
            b"\x28\xb5\x2f\xfd\xe1" + b"\7" + zstd(CONTENTS)[5:]
        ),
        "zstd-own-checksum-wrong": zstd_stored(
            b"\x28\xb5\x2f\xfd\xe4" + zstd(CONTENTS)[5:] + b"1234"
        ),
        "deflate-as-zstd": zstd_stored(deflate(CONTENTS)),
    }),
    (CORRUPT, "packets", "LZ4 block", {
        "lz4-cut": lz4_stored(lz4(CONTENTS)[:-1]),
        "lz4-cut-after-a-match": lz4_stored(lz4_sequence(b"1", 1, 100)),
        "lz4-cut-in-an-offset": lz4_stored(lz4_sequence(b"1", 1, 4)[:-1]),
        "lz4-cut-in-a-length": lz4_stored(lz4_sequence(b"1", 1, 1000)[:-1]),
        "lz4-of-one-byte": lz4_stored(b"\xf0"),
        "lz4-length-without-an-end": lz4_stored(b"\xf0" + b"\xff" * 8000),
        "lz4-a-byte-too-short": lz4_stored(lz4(CONTENTS[:-1])),
        "lz4-a-byte-too-long": lz4_stored(lz4(CONTENTS + b"\0")),
        "lz4-much-too-long": lz4_stored(lz4(bytes(1_000_000))),
        "lz4-of-nothing": lz4_stored(b"\0"),
        "lz4-bytes-after-it": lz4_stored(lz4(CONTENTS) + b"\0\0"),
        "lz4-invalid": lz4_stored(b"\xff" * 100),
        "lz4-offset-before-the-start": lz4_stored(
            lz4_sequence(b"1", 2, 8000) + lz4_sequence(bytes(2 * PAGE - 8001))
        ),
        "lz4-offset-far-before-the-start": lz4_stored(
            lz4_sequence(b"1", 0xFFFF, 8000) + lz4_sequence(bytes(2 * PAGE - 8001))
        ),
        "lz4-size-before-it": lz4_stored(struct.pack("<I", 2 * PAGE) + lz4(CONTENTS)),
        "lz4-in-a-frame": lz4_stored(
            b"\x04\x22\x4d\x18\x60\x40\x82"
            + struct.pack("<I", len(lz4(CONTENTS)))
            + lz4(CONTENTS)
            + bytes(4)
        ),
    }),
    # A decoder need not notice it, for the digest does.
    (CORRUPT, "packets", "packet 0", {
        "lz4-offset-0": lz4_stored(
            lz4_sequence(b"1", 1, 8000).replace(b"1\1\0", b"1\0\0")
            + lz4_sequence(bytes(2 * PAGE - 8001))
        ),
    }),
    # when the file is opened, or verified
    (CORRUPT, "verify", "index digest", {
        "index-digest-wrong": superblock(index_digest=b"1" * 32),
    }),
    (CORRUPT, "verify", "checksum of the page digests", {
        "page-digests-checksum-wrong": digested(records={0: {"page_digests_checksum": 1}}),
        "page-digests-byte-wrong": digested(patches=[(DIGESTS_AT, b"?")]),
        "page-digests-of-another-packet": digested(
            patches=[(DIGESTS_AT, digests(pages(b"4"), pages(b"5")))]
        ),
    }),
    (CORRUPT, "verify", "digest of page 2", {
        "page-digest-wrong": digested(
            other_page_digests={0: digests(pages(b"1"), b"", pages(b"4"))}
        ),
        "page-digest-of-data-page-zero": digested(other_page_digests={0: digests(pages(b"1"))}),
        "page-digest-of-zero-page-set": digested(
            other_page_digests={1: digests(pages(b"4"), pages(b"5"), pages(b""))}
        ),
    }),
    # step 12
    (CORRUPT, "verify", "beside the stored pages", {
        "fixed-raw-rest-not-zero": ram(
            layout=FIXED, encodings={0: RAW}, patches=[(PACKET + 9 * PAGE + 5, b"?")]
        ),
        "fixed-raw-last-byte-of-slot-not-zero": ram(
            layout=FIXED, encodings={0: RAW}, patches=[(2 * PACKET - 1, b"?")]
        ),
        "fixed-raw-zero-page-between-not-zero": ram(
            layout=FIXED, encodings={0: RAW}, patches=[(PACKET + PAGE, b"?")]
        ),
        "fixed-empty-slot-not-zero": with_hole(
            layout=FIXED, patches=[(PACKET + 2 * PACKET + 70, b"?")]
        ),
    }),
]  # fmt: skip


def write(path: Path, data: bytes) -> None:
    """Write a file packed with gzip, the same at any time."""
    path.write_bytes(gzip.compress(data, mtime=0))


def make() -> None:
    """Write all files."""
    from tests.golden import make_sealed

    for folder in ("good", "bad"):
        (HERE / folder).mkdir(exist_ok=True)
        for path in (HERE / folder).iterdir():
            path.unlink()
    sums = ""
    for name, snapshot in {**GOOD, **make_sealed.GOOD}.items():
        write(HERE / "good" / f"{name}.snap.gz", snapshot.build())
        sums += f"{sha256(snapshot.image).hexdigest()}  {name}\n"
    (HERE / "good" / "sha256sums").write_text(sums)
    rows = "file\texit code\tfound by\tword\n"
    for code, found_by, word, files in [*BAD, *make_sealed.BAD]:
        for name, snapshot in files.items():
            write(HERE / "bad" / f"{name}.snap.gz", snapshot.build())
            rows += f"{name}\t{code}\t{found_by}\t{word}\n"
    (HERE / "bad" / "refusals.tsv").write_text(rows)


def main() -> int:
    """Make the files unless they are there."""
    parser = argparse.ArgumentParser(description="Make the golden snapshots.")
    parser.add_argument("--force", action="store_true", help="replace those that are there")
    options = parser.parse_args()
    if (HERE / "good").exists() and not options.force:
        print("The golden snapshots are there; --force replaces them.", file=sys.stderr)
        return 1
    make()
    return 0


if __name__ == "__main__":
    sys.exit(main())
