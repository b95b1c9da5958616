"""Facts about index records."""

import zlib

import numpy as np
import pytest

from snapmig.container import index
from snapmig.container.format import Encoding
from snapmig.container.record_checks import check_record, records_sound
from snapmig.container.stored_index import count_records
from snapmig.errors import CorruptSnapshotError, UnsupportedError
from snapmig.geometry import PacketPlace

PACKET_SIZE = 64 << 10
PLACE = PacketPlace(5, 0, 5 * PACKET_SIZE, PACKET_SIZE)
WINDOW = (8192, 8192 + PACKET_SIZE)


def _record(**changes):
    # A sealed record of packet 5 with two data pages in 100 bytes of deflate, then changed.
    records = index.empty_records(5, 1, PACKET_SIZE)
    good = {"offset": 8192, "stored_size": 100, "encoding": Encoding.DEFLATE, "kinds": [5, 0, 0, 0]}
    for name, value in {**good, **changes}.items():
        records[0][name] = value
    index.seal_records(records)
    return records[0]


def test_a_good_record_passes():
    """A record that says nothing wrong is accepted."""
    assert check_record(_record(), PLACE, WINDOW, has_parent=False) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": Encoding.RAW, "stored_size": 8192},
        {"encoding": Encoding.EMPTY, "stored_size": 0, "offset": 0, "kinds": 0},
        {"stored_size": 8191},
        {"encoding": Encoding.ZSTD, "stored_size": 8191},
        {"encoding": Encoding.LZ4, "stored_size": 8191},
        {"stored_size": 1, "offset": 8191 + PACKET_SIZE},
        {"encoding": Encoding.RAW, "stored_size": PACKET_SIZE, "kinds": 0x55},
    ],
    ids=range(7),
)
def test_records_at_their_limits_pass(changes):
    """The largest values that are allowed are accepted."""
    assert check_record(_record(**changes), PLACE, WINDOW, has_parent=False) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packet": 6}, "index record is of packet 6"),
        ({"stored_size": 0}, "stored size is 0 for 2 data pages, expected 1 to 8191"),
        ({"stored_size": 8192}, "stored size is 8192 for 2 data pages, expected 1 to 8191"),
        ({"encoding": Encoding.RAW}, "stored size is 100 for 2 data pages, expected 8192"),
        ({"encoding": Encoding.RAW, "stored_size": 0, "kinds": 0}, "0 data pages in a packet of"),
        ({"encoding": Encoding.EMPTY}, "2 data pages in a packet of empty"),
        ({"encoding": Encoding.EMPTY, "stored_size": 0}, "2 data pages in a packet of empty"),
        ({"encoding": Encoding.EMPTY, "kinds": 0}, "stored size is 100 for 0 data pages"),
        ({"kinds": 0}, "0 data pages in a packet of deflate"),
        ({"encoding": Encoding.ZSTD, "kinds": 0}, "0 data pages in a packet of zstd"),
        ({"encoding": Encoding.LZ4, "kinds": 0}, "0 data pages in a packet of lz4"),
        ({"encoding": Encoding.ZSTD, "stored_size": 8192}, "stored size is 8192"),
        ({"encoding": Encoding.LZ4, "stored_size": 0}, "stored size is 0"),
        ({"offset": 8191}, "stored bytes are at 0x1fff"),
        ({"offset": 0}, "stored bytes are at 0x0"),
        ({"offset": 8192 + PACKET_SIZE - 99}, "expected between 0x2000 and 0x12000"),
        ({"offset": (1 << 64) - 1}, "stored bytes are at 0xffffffffffffffff"),
        (
            {"encoding": Encoding.EMPTY, "stored_size": 0, "kinds": 0, "offset": 8192},
            "stored bytes are at 0x2000",
        ),
        ({"kinds": [2, 0, 0, 0]}, "pages of a parent, and the snapshot has no parent"),
        ({"kinds": [0, 0, 0, 0xC0]}, "pages of a parent, and the snapshot has no parent"),
    ],
    ids=range(20),
)
def test_records_that_can_not_be(changes, words):
    """A record with a right checksum and a field that can't be is corrupt, with its packet."""
    with pytest.raises(CorruptSnapshotError, match=words) as caught:
        check_record(_record(**changes), PLACE, WINDOW, has_parent=False)

    assert caught.value.packet == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": 0}, "encoding is 0"),
        ({"encoding": 6}, "encoding is 6"),
        ({"encoding": 255}, "encoding is 255"),
        ({"flags": 1}, "reserved bits"),
        ({"reserved_1": 1}, "reserved bits"),
        ({"nonce": b"x" * 12}, "reserved bits"),
        ({"tag": b"x" * 16}, "reserved bits"),
        ({"page_digests_tag": b"x" * 16}, "reserved bits"),
        ({"reserved_3": b"x" * 4}, "reserved bits"),
    ],
    ids=range(9),
)
def test_records_that_another_version_reads(changes, words):
    """A record with a right checksum that needs more than this reader has is unsupported."""
    with pytest.raises(UnsupportedError, match=words) as caught:
        check_record(_record(**changes), PLACE, WINDOW, has_parent=False)

    assert caught.value.packet == 5


@pytest.mark.parametrize("kinds", [[7, 0, 0, 0], [5, 0, 0, 0x80], [5, 0, 0x0C, 0]])
def test_pages_of_a_parent_need_one(kinds):
    """Kinds 2 and 3 are corrupt where there is no parent; which comes first does not matter."""
    record = _record(kinds=kinds)

    with pytest.raises(CorruptSnapshotError, match="the snapshot has no parent"):
        check_record(record, PLACE, WINDOW, has_parent=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": [0b1101, 0, 0, 0x80]},
        {"kinds": 0xFF, "stored_size": PACKET_SIZE - 1},
        {"kinds": 0xFF, "stored_size": PACKET_SIZE, "encoding": Encoding.RAW},
        {"kinds": 0xAA, "stored_size": 0, "offset": 0, "encoding": Encoding.EMPTY},
    ],
    ids=range(4),
)
def test_pages_of_a_parent_pass_where_there_is_one(changes):
    """Differences count as stored pages, pages that are the parent's do not."""
    record = _record(**changes)

    assert check_record(record, PLACE, WINDOW, has_parent=True) is None
    assert records_sound(record.reshape(1), [5], PLACES, has_parent=True)


def test_pages_after_the_end_of_a_block():
    """A data page past the end of a short packet is corrupt."""
    short = PacketPlace(5, 0, 5 * PACKET_SIZE, 4096)

    with pytest.raises(CorruptSnapshotError, match="after the end of its RAM block"):
        check_record(_record(), short, WINDOW, has_parent=False)


@pytest.mark.parametrize("position", range(104))
def test_a_flipped_bit_of_a_record_is_found(position):
    """A record with one wrong bit in any byte is corrupt by its own checksum."""
    raw = bytearray(_record().tobytes())
    raw[position] ^= 0x10

    record = np.frombuffer(bytes(raw), index.record_dtype(PACKET_SIZE))[0]

    with pytest.raises(CorruptSnapshotError, match="index record's checksum"):
        check_record(record, PLACE, WINDOW, has_parent=False)


def test_the_checksum_is_zlibs_crc32():
    """A record's checksum is the CRC-32 of its bytes, its own field taken as zero."""
    raw = _record().tobytes()

    assert zlib.crc32(raw[:28] + bytes(4) + raw[32:]) == int.from_bytes(raw[28:32], "little")


def test_record_sum_is_what_sealing_writes():
    """The sum that readers compute is the one that writers store."""
    record = _record()

    assert index.record_sum(record.tobytes()) == record["record_checksum"]


@pytest.mark.parametrize("pages", [1, 3, 4, 16, 128])
def test_masks_come_back_as_they_were(pages):
    """The kinds of pages survive being stored, and the bits after them are zero."""
    mask = np.random.default_rng(pages).integers(0, 2, pages, np.uint8).astype(bool)

    stored = index.pack_kinds([mask], 128)[0]

    assert [*mask.tolist(), *[0] * (128 - pages)] == index.unpack_kinds(stored, 128).tolist()


def test_the_first_page_has_the_lowest_bits():
    """Kinds are read from the lowest two bits of a byte on."""
    assert index.unpack_kinds(np.array([0b11100100], np.uint8), 4).tolist() == [0, 1, 2, 3]


def test_unpacked_records_say_what_the_records_say():
    """Plain values of a batch are those of its records, one by one."""
    records = index.empty_records(5, 2, PACKET_SIZE)
    records["stored_size"] = [7, 8]
    records["digest"] = np.frombuffer(bytes(range(32)), "V16")
    records["kinds"][1] = 0b01010101

    second = index.unpack_records(records)[1]

    assert (6, 8, bytes(range(16, 32)), 16) == (
        second.packet,
        second.stored_size,
        second.digest,
        second.stored_pages,
    )


@pytest.mark.parametrize("count", [1, 4096, 5000])
def test_kind_counts_are_those_of_the_pages(count):
    """Counting kinds in stored bytes gives what counting pages gives."""
    records = index.empty_records(0, count, PACKET_SIZE)
    records["kinds"] = np.random.default_rng(1).integers(0, 256, (count, 4), np.uint8)
    pages = np.concatenate([index.unpack_kinds(kinds, 16) for kinds in records["kinds"]])

    counts = count_records(records.tobytes(), PACKET_SIZE)
    assert np.bincount(pages, minlength=4).tolist() == list(counts.pages)


def test_counts_of_encodings_and_bytes_are_those_of_the_records():
    """Each packet counts by its encoding, whatever the other bytes of its record are."""
    records = np.zeros(300, index.record_dtype(PACKET_SIZE))
    random = np.random.default_rng(2)
    records.view(np.uint8)[:] = random.integers(0, 256, records.nbytes, np.uint8)
    records["encoding"] = random.integers(1, 6, 300)
    counts = count_records(records.tobytes(), PACKET_SIZE)

    assert np.bincount(records["encoding"], minlength=6)[1:].tolist() == list(counts.encodings)
    assert counts.stored_size == records["stored_size"].sum(dtype=np.int64)


def test_empty_records_are_numbered_and_store_nothing():
    """Records of a hole are those of empty packets."""
    records = index.empty_records(7, 3, PACKET_SIZE)

    assert records[["packet", "encoding", "stored_size"]].tolist() == [
        (7, 1, 0),
        (8, 1, 0),
        (9, 1, 0),
    ]


@pytest.mark.parametrize("packet_size", [64 << 10 << shift for shift in range(7)])
def test_a_record_has_a_field_for_each_byte(packet_size):
    """No byte of a record is without a field: numpy's copies leave such bytes as they were."""
    dtype = index.record_dtype(packet_size)

    assert dtype.itemsize == sum(dtype[name].itemsize for name in dtype.names)


SOUND = {
    "deflate": {},
    "zstd": {"encoding": Encoding.ZSTD},
    "lz4": {"encoding": Encoding.LZ4},
    "raw": {"encoding": Encoding.RAW, "stored_size": 8192},
    "empty": {"encoding": Encoding.EMPTY, "stored_size": 0, "offset": 0, "kinds": 0},
}
UNSOUND = {
    "packet": {"packet": 6},
    "stored size": {"stored_size": 8192},
    "zstd size": {"encoding": Encoding.ZSTD, "stored_size": 8192},
    "lz4 without pages": {"encoding": Encoding.LZ4, "kinds": 0},
    "raw size": {"encoding": Encoding.RAW},
    "raw without pages": {"encoding": Encoding.RAW, "stored_size": 0, "kinds": 0},
    "empty with pages": {"encoding": Encoding.EMPTY, "stored_size": 0, "offset": 0},
    "empty with an offset": {"encoding": Encoding.EMPTY, "stored_size": 0, "kinds": 0},
    "offset": {"offset": 8191},
    "encoding": {"encoding": 6},
    "no encoding": {"encoding": 0},
    "flags": {"flags": 1},
    "reserved 1": {"reserved_1": 1},
    "nonce": {"nonce": b"x" * 12},
    "tag of page digests": {"page_digests_tag": b"x" * 16},
    "reserved 3": {"reserved_3": b"x" * 4},
    "parent": {"kinds": [7, 0, 0, 0]},
}
PLACES = (8192, 8192 + PACKET_SIZE, 0)


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND)
def test_a_batch_of_good_records_is_sound(changes):
    """Records that pass one by one pass together."""
    assert records_sound(_record(**changes).reshape(1), [5], PLACES, has_parent=False)


@pytest.mark.parametrize("changes", UNSOUND.values(), ids=UNSOUND)
def test_a_batch_with_a_bad_record_is_not_sound(changes):
    """A record that is refused alone is refused in a batch."""
    assert not records_sound(_record(**changes).reshape(1), [5], PLACES, has_parent=False)


@pytest.mark.parametrize(("offset", "sound"), [(0, True), (1, False), (PACKET_SIZE, False)])
def test_a_fixed_place_is_checked_in_a_batch(offset, sound):
    """In the fixed layout a record must point to the slot of its number."""
    start = 1 << 20
    record = _record(offset=start + 5 * PACKET_SIZE + offset)
    places = (start, start + 9 * PACKET_SIZE, PACKET_SIZE)

    assert sound == records_sound(record.reshape(1), [5], places, has_parent=False)


@pytest.mark.parametrize("position", range(104))
def test_a_flipped_bit_makes_a_batch_unsound(position):
    """One wrong bit in any byte of a record is seen in a batch."""
    raw = bytearray(_record().tobytes())
    raw[position] ^= 0x10

    assert not records_sound(
        np.frombuffer(bytes(raw), index.record_dtype(PACKET_SIZE)), [5], PLACES, has_parent=False
    )
