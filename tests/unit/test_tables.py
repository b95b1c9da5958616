"""Facts about the tables of RAM blocks, pieces and attachments."""

import struct

import pytest

from snapmig.container import tables
from snapmig.container.format import Encoding
from snapmig.container.tables import AttachmentEntry
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import RamBlock, RamPiece

BLOCKS = (RamBlock("pc.ram", 5 << 30), RamBlock("vga é", 1, page_size=2 << 20))
PLACED = (
    RamBlock("ram", 5 << 30, (RamPiece(0, 2 << 30, 0), RamPiece(2 << 30, 3 << 30, 4 << 30))),
    RamBlock("none", 4096),
    RamBlock("rom", 8192, (RamPiece(4096, 4096, 3 << 30), RamPiece(0, 8192, 8 << 30))),
)
ENTRY = AttachmentEntry("a", 4096, 10, 20, Encoding.DEFLATE, bytes(range(32)))


def test_blocks_come_back_as_they_were():
    """The block table keeps names, sizes and page sizes."""
    assert tables.unpack_blocks(tables.pack_blocks(BLOCKS)) == BLOCKS


def test_a_block_entry_has_its_size():
    """An entry of the block table has 320 bytes."""
    assert len(tables.pack_blocks(BLOCKS)) == 2 * 320 == 2 * tables.BLOCK_ENTRY_SIZE


@pytest.mark.parametrize(
    ("name", "size", "page_size", "words"),
    [
        (b"", 1, 4096, "not 1 to 255 bytes"),
        (b"\xff\xfe", 1, 4096, "is not UTF-8"),
        (b"a\0b", 1, 4096, "not ended by a zero byte"),
        (b"a" * 256, 1, 4096, "not ended by a zero byte"),
        (b"a", 0, 4096, "has 0 bytes"),
        (b"a", (1 << 64) - 1, 4096, "more than"),
        (b"a", 1, 0, "pages of 0 bytes"),
        (b"a", 1, 6144, "pages of 6144 bytes"),
    ],
    ids=range(8),
)
def test_block_entries_that_no_guest_has(name, size, page_size, words):
    """A stored RAM block that can't be is corrupt."""
    raw = struct.pack("<256sQQ48x", name, size, page_size)

    with pytest.raises(CorruptSnapshotError, match=words):
        tables.unpack_blocks(raw)


def test_pieces_come_back_as_they_were():
    """The piece table keeps the addresses of each part of each RAM block."""
    bare = tables.unpack_blocks(tables.pack_blocks(PLACED))
    assert tables.unpack_pieces(tables.pack_pieces(PLACED), bare) == PLACED


def test_a_piece_entry_has_its_size():
    """An entry of the piece table has 32 bytes."""
    assert len(tables.pack_pieces(PLACED)) == 4 * 32 == 4 * tables.PIECE_ENTRY_SIZE


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(0, 4096, 0, 2, 0)], "RAM block 2"),
        ([(0, 4096, 0, 0, 1)], "1 as reserved"),
        ([(0, 0, 0, 0, 0)], "piece of 0 from"),
        ([(0, 12288, 0, 0, 0)], "piece of 12288 from"),
        ([(0, 4096, 8192, 0, 0)], "from 0x2000 on"),
        ([(0, 4096, 100, 0, 0)], "from 0x64 on"),
        ([(0, 4000, 0, 0, 0)], "piece of 4000 from"),
        ([((1 << 56) - 4095, 4096, 0, 0, 0)], "guest physical address"),
        ([(4096, 4096, 0, 0, 0), (0, 4096, 0, 0, 0)], "comes after"),
        ([(0, 8192, 0, 0, 0), (4096, 4096, 0, 0, 0)], "0x1000 in common"),
        ([(0, 4096, 0, 0, 0), (0, 4096, 4096, 0, 0)], "0x0 in common"),
    ],
    ids=range(11),
)
def test_piece_entries_that_can_not_be(entries, words):
    """A stored piece that can't be is corrupt."""
    raw = b"".join(struct.pack("<QQQII", *entry) for entry in entries)

    with pytest.raises(CorruptSnapshotError, match=words):
        tables.unpack_pieces(raw, (RamBlock("ram", 8192),))


def test_attachments_come_back_as_they_were():
    """The attachment table keeps names, places, sizes and digests."""
    entries = (ENTRY, ENTRY._replace(name="b", encoding=Encoding.RAW, size=10))

    assert (
        tables.unpack_attachments(tables.pack_attachments(entries), start=4096, stop=4106)
        == entries
    )


def test_an_attachment_entry_has_its_size():
    """An entry of the attachment table has 384 bytes."""
    assert len(tables.pack_attachments((ENTRY,))) == 384 == tables.ATTACHMENT_ENTRY_SIZE


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((ENTRY._replace(name=""),), "has no name"),
        ((ENTRY, ENTRY), "a name appears twice"),
        ((ENTRY._replace(offset=4095),), "outside of the file's attachments"),
        ((ENTRY._replace(stored_size=4097),), "outside of the file's attachments"),
        ((ENTRY._replace(offset=(1 << 64) - 1),), "outside of the file's attachments"),
        ((ENTRY._replace(size=(1 << 30) + 1),), "expected at most"),
        ((ENTRY._replace(size=10_321),), "10321 bytes from 10"),
        ((ENTRY._replace(encoding=Encoding.RAW),), "is raw with 10 bytes, expected 20"),
    ],
    ids=range(8),
)
def test_attachment_entries_that_can_not_be(entries, words):
    """A stored attachment that can't be is corrupt."""
    with pytest.raises(CorruptSnapshotError, match=words):
        tables.unpack_attachments(tables.pack_attachments(entries), start=4096, stop=8192)


@pytest.mark.parametrize("encoding", [0, Encoding.EMPTY, 4, 255])
def test_attachments_in_an_unknown_encoding_are_listed(encoding):
    """An attachment that this reader can't decode does not keep the others from being read."""
    entries = (ENTRY._replace(encoding=encoding), ENTRY._replace(name="b"))
    raw = tables.pack_attachments(entries)

    assert tables.unpack_attachments(raw, start=4096, stop=8192) == entries
