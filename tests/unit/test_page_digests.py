"""Facts about the digests of pages: made, found, checked and compared."""

import zlib

import numpy as np
import pytest
import xxhash

from snapmig.container import index
from snapmig.container.format import Encoding, PageKind
from snapmig.container.page_digests import PageDigestReader, digest_pages, wrong_page
from snapmig.container.record_checks import check_record, records_sound
from snapmig.container.shares import share_packets
from snapmig.encodings.packet import against_digests, against_parent, summarise, with_page_digests
from snapmig.errors import CorruptSnapshotError, UnsupportedError
from snapmig.geometry import Geometry, PacketPlace, RamBlock
from tests.support import ram

PACKET_SIZE = 64 << 10
PAGES = 16
SIZE = PAGES * 16
PLACE = PacketPlace(5, 0, 5 * PACKET_SIZE, PACKET_SIZE)
WINDOW = (8192, 8192 + PACKET_SIZE)
MIXED = np.concatenate([ram.text(2), ram.zeros(1), ram.noise(PAGES - 3)])


def _packet(number, pages=MIXED, checksum=None):
    kinds = pages.any(axis=1).view(np.uint8)
    digests = digest_pages(pages[kinds.view(bool)], kinds.view(bool))
    checksum = zlib.crc32(digests) if checksum is None else checksum
    stored = int(kinds.sum())
    return index.StoredPacket(number, 0, 0, 2, 0, b"", kinds, stored, False, checksum)


def _digests(pages=MIXED):
    return b"".join(
        xxhash.xxh3_128_digest(page.tobytes()) if page.any() else bytes(16) for page in pages
    )


class _File:
    # What a reader reads from, with the places that it asked for.
    def __init__(self, content):
        self.content = content
        self.asked = []

    def read(self, offset, length):
        self.asked.append((offset, length))
        return self.content[offset : offset + length]


def _reader(file, packets=200):
    return PageDigestReader(file.read, 4096, PACKET_SIZE, packets, "monday.snap")


def test_each_page_has_its_own_digest():
    """An entry is the XXH3-128 of its page, and zero where the page is."""
    mask = MIXED.any(axis=1)

    assert digest_pages(MIXED[mask], mask) == _digests()


@pytest.mark.parametrize(
    "pages",
    [
        ram.text(PAGES),
        ram.zeros(PAGES),
        MIXED[:3],
        np.concatenate([ram.zeros(2), ram.text(3), ram.zeros(1)]),
    ],
)
def test_digests_of_full_of_empty_and_of_short_packets(pages):
    """There are as many entries as pages, also where those other than zero are neighbours."""
    mask = pages.any(axis=1)

    assert digest_pages(pages[mask], mask) == _digests(pages)


def test_a_page_that_is_another_is_named():
    """The first page whose digest is another one is told, with both digests."""
    other = MIXED.copy()
    other[[4, 9]] ^= 1
    error = wrong_page(_packet(7), MIXED[MIXED.any(axis=1)], _digests(other))

    words = f"digest of page 4 is {xxhash.xxh3_128_hexdigest(other[4].tobytes())}, computed "
    assert str(error).startswith(f"packet 7: {words}")


def test_nothing_is_wrong_with_the_digests_of_the_pages():
    """Pages with their own digests pass."""
    assert wrong_page(_packet(7), MIXED[MIXED.any(axis=1)], _digests()) is None


def test_digests_of_a_packet_are_at_its_number():
    """Packet k has the P times 16 bytes at k times that."""
    file = _File(bytes(4096 + 7 * SIZE) + _digests() + bytes(300 * SIZE))

    assert _reader(file).of(_packet(7)) == _digests()


def test_a_batch_is_read_at_once():
    """The digests of 4 MiB of RAM are one read, and those after the last packet none."""
    file = _File(bytes(4096) + _digests() * 100)
    reader = _reader(file, 100)
    for number in range(100):
        reader.of(_packet(number))

    assert file.asked == [(4096, 64 * SIZE), (4096 + 64 * SIZE, 36 * SIZE)]


def test_nothing_is_read_of_a_packet_without_pages():
    """Its place in the file is a hole."""
    file = _File(b"")

    assert (_reader(file).of(_packet(0, ram.zeros(PAGES), 0)), file.asked) == (bytes(SIZE), [])


def test_damaged_digests_are_refused():
    """The error names file, packet, place, and both sums."""
    file = _File(bytes(4096) + _digests()[:-1] + b"?")
    with pytest.raises(CorruptSnapshotError) as caught:
        _reader(file, 1).of(_packet(0))

    computed = zlib.crc32(file.content[4096:])
    words = f"is {zlib.crc32(_digests()):#010x}, computed {computed:#010x}"
    assert str(caught.value) == (
        f"monday.snap: packet 0: offset 0x1000: checksum of the page digests {words}"
    )


def test_a_file_that_ends_within_them_is_refused():
    """Missing digests are not taken for zeros."""
    with pytest.raises(CorruptSnapshotError, match="file ends after 96 of 256 bytes of page dig"):
        _reader(_File(bytes(4096) + _digests()[:96]), 1).of(_packet(0))


def test_a_stored_page_of_zeros_compares_as_one_that_is_not_stored():
    """Two packets with the same contents have the same rows, whatever their kinds."""
    stored_zero = _packet(0, MIXED, zlib.crc32(b"")).kinds.copy()
    stored_zero[2] = PageKind.DATA
    digests = b"".join(xxhash.xxh3_128_digest(page.tobytes()) for page in MIXED)
    one = _reader(_File(bytes(4096) + _digests()), 1).rows(_packet(0))
    packet = index.StoredPacket(
        0, 0, 0, 2, 0, b"", stored_zero, PAGES, False, zlib.crc32(digests)
    )  # fmt: skip
    other = _reader(_File(bytes(4096) + digests), 1).rows(packet)

    assert (one == other).all()


def _record(**changes):
    # A sealed record of packet 5 with two data pages in 100 bytes of deflate, then changed.
    records = index.empty_records(5, 1, PACKET_SIZE)
    good = {"offset": 8192, "stored_size": 100, "encoding": Encoding.DEFLATE, "kinds": [5, 0, 0, 0]}
    for name, value in {**good, **changes}.items():
        records[0][name] = value
    index.seal_records(records)
    return records


def _sound(records, *, has):
    places = (8192 - 5 * PACKET_SIZE, 8192 + PACKET_SIZE, PACKET_SIZE)
    places = (0, 8192 + PACKET_SIZE, 0) if places[0] < 0 else places
    return records_sound(records, [5], places, has_parent=False, has_page_digests=has)


def test_a_record_has_a_sum_of_page_digests():
    """Where the snapshot has them, both checks of records take any sum, zero too."""
    for checksum in (0, 77):
        records = _record(page_digests_checksum=checksum)

        check_record(records[0], PLACE, WINDOW, has_parent=False, has_page_digests=True)
        assert _sound(records, has=True)


@pytest.mark.parametrize(
    ("has", "changes"),
    [
        (False, {}),
        (True, {"encoding": Encoding.EMPTY, "stored_size": 0, "offset": 0, "kinds": 0}),
    ],
)
def test_a_sum_of_page_digests_that_are_not_there_is_refused(has, changes):
    """Without page digests, or pages, the field is reserved."""
    records = _record(page_digests_checksum=77, **changes)
    with pytest.raises(UnsupportedError, match="reserved"):
        check_record(records[0], PLACE, WINDOW, has_parent=False, has_page_digests=has)

    assert not _sound(records, has=has)


@pytest.mark.parametrize("at", [76, 79, 80, 95])
def test_reserved_bytes_beside_the_sum_are_refused(at):
    """Those after it are still reserved, and so is it without page digests."""
    records = _record()
    raw = bytearray(records.tobytes())
    raw[at] = 1
    records = np.frombuffer(raw, records.dtype).copy()
    index.seal_records(records)

    assert (_sound(records, has=False), _sound(records, has=True)) == (False, at < 80)


@pytest.mark.parametrize("packet_size", [1 << bits for bits in range(16, 23)])
def test_shares_begin_at_pages_of_the_digests(packet_size):
    """No two hosts write one page of the file."""
    geometry = Geometry((RamBlock("ram", 40_000 * packet_size + 1),), packet_size)
    starts = [share_packets(geometry, share, 7).start for share in range(1, 8)]

    assert [start * (packet_size // 256) % 4096 for start in starts] == [0] * 7


def test_pages_with_the_parents_digests_are_the_parents():
    """The stored pages are those of a comparison of bytes without differences."""
    parent = np.concatenate([ram.text(4), ram.zeros(2), ram.noise(2)])
    pages = parent.copy()
    pages[1, 7] ^= 1
    pages[4, 0] = 1
    pages[3] = 0
    summary = with_page_digests(summarise(pages))
    mask = parent.any(axis=1)
    found = against_digests(summary, digest_pages(parent[mask], mask), mask)
    expected = against_parent(summary, parent, deltas=False).plain

    assert found.kinds.tolist() == expected.kinds.tolist()
    assert (found.data == expected.data).all()
    assert (found.digest, found.page_digests) == (expected.digest, _digests(pages))


def test_a_page_is_not_the_parents_where_that_has_none():
    """An entry of zeros is no digest, whatever the page's is."""
    summary = summarise(ram.text(2))._replace(page_digests=bytes(32))
    found = against_digests(summary, bytes(32), np.array([False, True]))

    assert found.kinds.tolist() == [PageKind.DATA, PageKind.SAME_AS_PARENT]
