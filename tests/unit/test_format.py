"""Facts about the superblock and the format's constants."""

import struct
import zlib

import pytest

from snapmig.container import format as fmt
from snapmig.container.format import Layout, Superblock
from snapmig.errors import CorruptSnapshotError, UnsupportedError

GOOD = Superblock(record_size=128, block_count=1)


def _sealed(raw):
    # The bytes with the checksum that belongs to them, computed here.
    bare = raw[:12] + bytes(4) + raw[16:]
    return raw[:12] + struct.pack("<I", zlib.crc32(bare)) + raw[16:]


def test_a_superblock_has_4096_bytes():
    """The stored form has the superblock's size."""
    assert len(GOOD.pack()) == 4096


def test_the_magic_number_comes_first():
    """Magic and version stand where they never move from."""
    assert GOOD.pack()[:12] == b"\x93SNAPMIG\x01\0\0\0"


def test_the_checksum_is_zlibs_crc32():
    """The checksum is the CRC-32 of all bytes, its own field taken as zero."""
    assert GOOD.pack() == _sealed(GOOD.pack())


def test_a_superblock_comes_back_as_it_was():
    """A packed superblock is unpacked again, but for the checksum that was filled in."""
    block = GOOD._replace(snapshot_id=bytes(range(16)), file_size=1 << 60, created_ns=5)

    assert Superblock.unpack(block.pack())._replace(checksum=0) == block


def test_fields_follow_each_other():
    """No field of the superblock overlaps another or leaves a gap."""
    fields = fmt.superblock_fields()

    assert [at for at, _, _ in fields][1:] == [at + size for at, size, _ in fields][:-1]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "file is empty"),
        (bytes(4096), "starts with zeros"),
        (bytes(10), "starts with zeros"),
        (b"\x7fELF" + bytes(4092), "this is an ELF file that is no core dump"),
        (b"\x93SNAPMIG" + bytes(20), "has only 28 bytes"),
        (b"\x93SNAPMI", "starts with 93 53"),
        (GOOD.pack()[:4095], "has only 4095 bytes"),
        (GOOD.pack()[:12] + bytes(4) + GOOD.pack()[16:], "checksum is 0x00000000"),
        (_sealed(GOOD.pack()[:4095] + b"x"), "has reserved bytes set"),
    ],
    ids=range(9),
)
def test_bytes_that_are_no_superblock(raw, words):
    """A superblock that is not whole is refused as corrupt, with what was found."""
    with pytest.raises(CorruptSnapshotError, match=words):
        Superblock.unpack(raw)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"packet_size": 0}, "packet size is 0"),
        ({"packet_size": 32 << 10}, "packet size is 32768"),
        ({"packet_size": 96 << 10}, "packet size is 98304"),
        ({"packet_size": 8 << 20}, "packet size is 8388608"),
        ({"window_bits": 8}, "window is 8, expected 9 to 15 bits"),
        ({"window_bits": 16}, "window is 16"),
        ({"record_size": 0}, "record size is 0"),
        ({"record_size": 136}, "record size is 136"),
        ({"block_count": 0}, "number of RAM blocks is 0"),
        ({"block_count": 4097}, "number of RAM blocks is 4097"),
        ({"attachment_count": 4097}, "number of attachments is 4097"),
        ({"reserved": 1}, "reserved field is 1"),
    ],
    ids=range(12),
)
def test_fields_beyond_their_limits(change, words):
    """A field that can't be is refused as corrupt although the checksum is right."""
    with pytest.raises(CorruptSnapshotError, match=words):
        Superblock.unpack(GOOD._replace(**change).pack())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version_major": 2}, r"format version is 2.0, this reader knows 1.x"),
        ({"version_major": 0}, r"format version is 0.0"),
        ({"incompatible": 1 << 63}, r"bits \[63\]"),
        ({"incompatible": 5}, r"bits \[0, 2\]"),
        ({"encodings": 1}, r"encodings \[0\]"),
        ({"encodings": 1 << 6}, r"encodings \[6\]"),
        ({"layout": 0}, "layout 0"),
        ({"layout": 3}, "layout 3"),
        ({"page_size": 65536}, "pages of 65536 bytes"),
    ],
    ids=range(9),
)
def test_features_that_this_reader_has_not(change, words):
    """A feature of another version is unsupported, not corrupt."""
    with pytest.raises(UnsupportedError, match=words):
        Superblock.unpack(GOOD._replace(**change).pack())


@pytest.mark.parametrize(
    "change",
    [
        {"version_minor": 9},
        {"compatible": (1 << 64) - 1},
        {"encodings": 0b111110},
        {"layout": Layout.PACKED},
        {"parent_id": bytes(range(16))},
    ],
    ids=range(5),
)
def test_changes_that_a_reader_may_ignore(change):
    """A newer minor version and compatible features are read."""
    assert Superblock.unpack(GOOD._replace(**change).pack())._replace(checksum=0) == GOOD._replace(
        **change
    )


def test_the_version_is_looked_at_before_the_checksum():
    """A snapshot of a future version is unsupported even where its checksum is another one."""
    with pytest.raises(UnsupportedError):
        Superblock.unpack(GOOD.pack()[:8] + b"\x02\0" + GOOD.pack()[10:])


@pytest.mark.parametrize(
    ("packet_size", "size"), [(64 << 10, 104), (512 << 10, 128), (1 << 20, 160), (4 << 20, 352)]
)
def test_record_size(packet_size, size):
    """A record has 96 bytes and two bits for each page."""
    assert size == fmt.record_size(packet_size)


def test_a_tebibyte_needs_at_most_256_mebibytes_of_index():
    """The index of a large guest stays small."""
    assert (1 << 40) // fmt.DEFAULT_PACKET_SIZE * fmt.record_size(512 << 10) <= 256 << 20


@pytest.mark.parametrize(
    ("number", "expected"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (1 << 56, 1 << 56)]
)
def test_align_up(number, expected):
    """A number is rounded up to 4096."""
    assert expected == fmt.align_up(number)
