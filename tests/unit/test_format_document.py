import re
import struct
from pathlib import Path

import pytest

from snapmig import geometry
from snapmig.container import format as constants
from snapmig.container import tables
from snapmig.container.index import record_dtype
from tests.support import builders, sealing

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
PACKET_SIZES = [1 << bits for bits in range(16, 23)]


def section(title):
    """Return the text of one section."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S)[1]


def rows(title, first_column, number=0):
    """Return the rows of a table in a section, of those whose first column has that heading."""
    table = section(title).split(f"\n| {first_column} |")[number + 1].split("\n\n")[0]
    cells = [line.strip("| ").split("|") for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in row] for row in cells]


def fields(title, number=0):
    """Return (offset, size, name) of the fields in a table of a section."""
    return [(int(row[0]), int(row[1]), row[2]) for row in rows(title, "offset", number)]


def record_fields():
    """Return (offset, size, name) of a record's fields before the kinds."""
    return [(int(row[0]), int(row[1]), row[2]) for row in rows("Index", "offset")[:-1]]


def meaning(title, name):
    """Return what the table in a section says about a field."""
    return next(row[3] for row in rows(title, "offset") if row[2] == name)


def numbers(text):
    """Return the numbers in a text, powers of two worked out."""
    powers = re.sub(r"2\^(\d+)", lambda power: str(1 << int(power[1])), text)
    return [int(number) for number in re.findall(r"\d+", powers)]


def field_of(entry, title, name):
    """Return the bytes of a field in a stored entry, where the document says that they are."""
    offset, size = next((at, size) for at, size, known in fields(title) if known == name)
    return entry[offset : offset + size]


def test_superblock_fields():
    """The superblock's table has the fields of the code, at the same places."""
    assert fields("Superblock")[:-1] == constants.superblock_fields()


def test_superblock_end():
    """The superblock's table ends with reserved bytes up to the superblock's size."""
    offset, size, name = fields("Superblock")[-1]
    expected = (constants.SUPERBLOCK_SIZE, "")
    assert expected == (offset + size, name)


TABLES = [
    ("Superblock", 0, builders.SUPERBLOCK_FIELDS),
    ("Block table", 0, builders.BLOCK_FIELDS),
    ("Piece table", 0, builders.PIECE_FIELDS),
    ("Attachment table", 0, builders.ATTACHMENT_FIELDS),
    ("Sealing", 0, sealing.KEY_TABLE_FIELDS),
    ("Sealing", 1, sealing.KEY_SLOT_FIELDS),
]


@pytest.mark.parametrize(("title", "number", "_known"), TABLES)
def test_no_gaps(title, number, _known):
    """The fields of a table follow each other without gaps."""
    table = fields(title, number)
    assert [at + size for at, size, _ in table[:-1]] == [at for at, _, _ in table[1:]]


def test_record_fields():
    """The record's table has the fields of the code, at the same places."""
    dtype = record_dtype(constants.DEFAULT_PACKET_SIZE)
    expected = [(dtype.fields[name][1], dtype[name].itemsize, name) for name in dtype.names[:-1]]
    assert expected == record_fields()


@pytest.mark.parametrize("packet_size", PACKET_SIZES)
def test_kinds_size(packet_size):
    """The kinds have a quarter of a byte for each page, after the other fields."""
    dtype = record_dtype(packet_size)
    assert (packet_size // 4096 // 4, 96) == (dtype["kinds"].itemsize, dtype.fields["kinds"][1])


@pytest.mark.parametrize("packet_size", PACKET_SIZES)
def test_record_size(packet_size):
    """A record has align(96 + P / 4, 8) bytes."""
    pages = packet_size // 4096
    assert -(-(96 + pages // 4) // 8) * 8 == constants.record_size(packet_size)


def test_record_size_of_the_default():
    """The document names the record size for packets of 512 KiB."""
    expected = f"{constants.record_size(512 << 10)} bytes for packets of 512 KiB"
    assert expected in section("Index")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Block table", tables.BLOCK_ENTRY_SIZE),
        ("Piece table", tables.PIECE_ENTRY_SIZE),
        ("Attachment table", tables.ATTACHMENT_ENTRY_SIZE),
    ],
)
def test_entry_size(title, expected):
    """A table's entry has the size that its fields give."""
    offset, size, _ = fields(title)[-1]
    assert expected == offset + size


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Block table", tables.BLOCK_ENTRY_SIZE),
        ("Piece table", tables.PIECE_ENTRY_SIZE),
        ("Attachment table", tables.ATTACHMENT_ENTRY_SIZE),
    ],
)
def test_entry_size_in_words(title, expected):
    """The sentence before a table names the size of its entries."""
    assert f"One entry of {expected} bytes for each" in section(title)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", b"pc.ram".ljust(256, b"\0")),
        ("size", (123456).to_bytes(8, "little")),
        ("page_size", (2 << 20).to_bytes(8, "little")),
        ("", bytes(48)),
    ],
)
def test_block_entry(name, expected):
    """The code writes a RAM block's fields where the document says."""
    entry = tables.pack_blocks((geometry.RamBlock("pc.ram", 123456, page_size=2 << 20),))
    assert expected == field_of(entry, "Block table", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpa", (1 << 32).to_bytes(8, "little")),
        ("size", (123456 - 4096).to_bytes(8, "little")),
        ("offset", (4096).to_bytes(8, "little")),
        ("block", b"\1\0\0\0"),
        ("reserved", bytes(4)),
    ],
)
def test_piece_entry(name, expected):
    """The code writes a piece's fields where the document says."""
    pieces = (geometry.RamPiece(4096, 123456 - 4096, 1 << 32),)
    blocks = (geometry.RamBlock("rom", 1), geometry.RamBlock("ram", 123456, pieces))
    assert expected == field_of(tables.pack_pieces(blocks), "Piece table", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name", b"state".ljust(256, b"\0")),
        ("offset", (1 << 33).to_bytes(8, "little")),
        ("stored_size", (77).to_bytes(8, "little")),
        ("size", (99).to_bytes(8, "little")),
        ("encoding", b"\3"),
        ("sha256", bytes(range(32))),
        ("", bytes(7)),
    ],
)
def test_attachment_entry(name, expected):
    """The code writes an attachment's fields where the document says."""
    entry = tables.AttachmentEntry("state", 1 << 33, 77, 99, 3, bytes(range(32)))
    assert expected == field_of(tables.pack_attachments((entry,)), "Attachment table", name)


def test_encodings():
    """The encodings are those of the code."""
    expected = [(kind.value, kind.name.lower()) for kind in constants.Encoding]
    assert expected == [(int(row[0]), row[1]) for row in rows("Index", "encoding")]


def test_kinds():
    """The kinds of pages are those of the code."""
    expected = [(kind.value, kind.name.lower().replace("_", "-")) for kind in constants.PageKind]
    assert expected == [(int(row[0]), row[1]) for row in rows("Index", "kind")]


def test_layouts():
    """The layouts are those of the code."""
    expected = ", ".join(f"{kind.value}: {kind.name.lower()}" for kind in constants.Layout)
    assert expected == meaning("Superblock", "layout")


def test_attachment_encodings():
    """An attachment is raw or deflate, by the code's numbers."""
    expected = f"{constants.Encoding.RAW}: raw, {constants.Encoding.DEFLATE}: one deflate stream"
    assert expected in meaning("Attachment table", "encoding")


def test_magic():
    """The magic is that of the code."""
    assert constants.MAGIC.hex(" ") in meaning("Superblock", "magic")


def test_version():
    """The document is of the version that the code writes."""
    expected = f"Version {constants.VERSION_MAJOR}.{constants.VERSION_MINOR}, "
    assert expected in DOCUMENT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page_size", [geometry.PAGE_SIZE]),
        ("packet_size", [constants.MIN_PACKET_SIZE, constants.MAX_PACKET_SIZE]),
        ("block_count", [1, constants.MAX_RAM_BLOCKS]),
        ("attachment_count", [0, constants.MAX_ATTACHMENTS]),
        ("piece_count", [0, constants.MAX_PIECES]),
        ("version_minor", [constants.VERSION_MINOR]),
    ],
)
def test_limits_of_the_superblock(name, expected):
    """The superblock's limits are those of the code."""
    assert expected == numbers(meaning("Superblock", name))


def test_limits_of_the_window():
    """The window's limits are those of the code."""
    expected = [constants.MIN_WINDOW_BITS, constants.MAX_WINDOW_BITS]
    assert expected == numbers(meaning("Superblock", "window_bits"))[:2]


def test_no_incompatible_features():
    """The document defines no feature bits, and the code knows none."""
    expected = constants.INCOMPATIBLE_KNOWN == 0
    assert expected == ("No feature bits are defined in this version" in DOCUMENT)


@pytest.mark.parametrize("title", ["Block table", "Attachment table"])
def test_limits_of_a_name(title):
    """A name's limit is that of the code."""
    assert f"1 to {constants.MAX_NAME_SIZE} bytes" in meaning(title, "name")


def test_limit_of_addresses():
    """The limit of guest physical addresses is that of the code."""
    words = re.search(r"ends at the address (2\^\d+)", section("Piece table"))[1]
    assert numbers(words) == [geometry.MAX_RAM_SIZE]


def test_byte_orders():
    """The byte orders are those of the code."""
    little, big = constants.LITTLE_ENDIAN, constants.BIG_ENDIAN
    expected = f"{little}: little-endian, {big}: big-endian"
    assert expected in meaning("Superblock", "machine_data")


def test_limit_of_all_ram():
    """The limit of all RAM blocks together is that of the code."""
    words = re.search(r"All sizes together are at most (2\^\d+)", section("Block table"))[1]
    expected = [geometry.MAX_RAM_SIZE]
    assert expected == numbers(words)


def test_limit_of_an_attachment():
    """The limit of an attachment's size is that of the code."""
    expected = constants.MAX_ATTACHMENT_SIZE
    assert expected == numbers(meaning("Attachment table", "size"))[0]


@pytest.mark.parametrize(("title", "number", "known"), TABLES)
def test_fields_of_the_builder(title, number, known):
    """The tests' own writer has the fields of the document; those without a name come last."""
    names = [name for _, _, name in fields(title, number)]
    expected = [name for name in names if name]
    assert expected == [name for name in known if name in names]


@pytest.mark.parametrize(("title", "number", "known"), TABLES)
def test_sizes_of_the_builder(title, number, known):
    """The structures of the tests' own writer are as long as the document says."""
    offset, size, _ = fields(title, number)[-1]
    assert offset + size == struct.calcsize("<" + "".join(known.values()))


def test_record_of_the_builder():
    """The tests' own writer has the record's fields, all before the kinds."""
    sizes = [(name, struct.calcsize(code)) for name, code in builders.RECORD_FIELDS.items()]
    assert sizes == [(name, size) for _, size, name in record_fields()]


def test_key_table():
    """The key table has the size, and the number of slots, of the code."""
    from snapmig.sealing import key_table

    table, slot = fields("Sealing", 0), fields("Sealing", 1)
    sizes = [sum(known[-1][:2]) for known in (table, slot)]
    assert sizes == [key_table.TABLE_SIZE, key_table.SLOT_SIZE]
    assert table[-1][1] == key_table.SLOTS * key_table.SLOT_SIZE


def test_key_table_in_words():
    """The sentences of the key table name the sizes that its fields give."""
    size, slot = (sum(fields("Sealing", number)[-1][:2]) for number in (0, 1))
    assert f"Two copies of {size} bytes each" in section("Sealing")
    assert f"{fields('Sealing')[-1][1] // slot} key slots of {slot} bytes" in section("Sealing")


def test_sealings():
    """The numbers of ways to seal are those of the tests' own writer."""
    expected = f"0: none, {sealing.SIGNED}: signed, {sealing.ENCRYPTED}: encrypted"
    assert expected == meaning("Superblock", "sealing")
