"""Facts about damaged snapshots, and snapshots made by another version."""

import hashlib
import struct
import zlib

import pytest

import snapmig
from snapmig.container.format import Superblock
from tests.support import ram, slots

MIB = 1 << 20
PACKET = 512 << 10
CONTENT = ram.text(16 * 128).tobytes()


@pytest.fixture(scope="module")
def good(shared_shm):
    """Give the bytes of a snapshot of 16 packets of text with an attachment."""
    ram.write(shared_shm / "a", CONTENT)
    snapmig.save(shared_shm / "a", shared_shm / "s", attach={"state": ram.noise(1).tobytes()})
    return (shared_shm / "s").read_bytes()


@pytest.fixture
def place(shm, monkeypatch):
    """Give a working directory for the program."""
    monkeypatch.chdir(shm)
    return shm


def _sealed(raw):
    return raw[:12] + struct.pack("<I", zlib.crc32(raw[:12] + bytes(4) + raw[16:])) + raw[16:]


def _with_superblock(raw, **changes):
    return Superblock.unpack(raw[:4096])._replace(**changes).pack() + raw[4096:]


def _damaged(raw, *packets):
    # Each packet's slot with one byte changed.
    damaged = bytearray(raw)
    for packet in packets:
        damaged[PACKET + packet * PACKET + 100] ^= 0xFF
    return bytes(damaged)


CASES = {
    "empty": (lambda raw: raw[:0], 3, "not a snapshot: file is empty"),
    "zeros": (lambda _: bytes(8192), 3, "not a snapshot: file starts with zeros"),
    "text": (lambda _: b"hello world" * 99, 3, "not a snapshot: file starts with 68 65 6c"),
    "superblock alone": (lambda raw: raw[:4096], 3, "file has 4096 bytes, the superblock says"),
    "half": (lambda raw: raw[: len(raw) // 2], 3, "truncated"),
    "a byte short": (lambda raw: raw[:-1], 3, "truncated"),
    "a byte long": (lambda raw: raw + b"x", 3, "longer than it should be"),
    "superblock": (lambda raw: raw[:40] + b"x" + raw[41:], 3, "superblock checksum is"),
    "block table": (lambda raw: raw[:4100] + b"x" + raw[4101:], 3, "block table's checksum"),
    "attachments": (lambda raw: raw[:-100] + b"x" + raw[-99:], 3, "attachment table's checksum"),
    "newer": (
        lambda raw: _sealed(raw[:8] + b"\x02\0" + raw[10:4096]) + raw[4096:],
        4,
        "format version is 2.0, this reader knows 1.x",
    ),
    "feature": (
        lambda raw: _with_superblock(raw, incompatible=1 << 9),
        4,
        "needs the features with the bits [9], which this reader does not have",
    ),
    "encoding": (
        lambda raw: _with_superblock(raw, encodings=1 << 7),
        4,
        "has packets in the encodings [7]",
    ),
    "layout": (lambda raw: _with_superblock(raw, layout=7), 4, "has the layout 7"),
}


@pytest.mark.parametrize(("change", "code", "words"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("verb", ["info", "restore", "verify"])
def test_what_is_no_good_snapshot(place, cli, good, verb, change, code, words):
    """A bad snapshot has its exit code, its name and its cause in the error."""
    ram.write(place / "s", change(good))
    outcome = cli(verb, "s", *{"restore": ["r"]}.get(verb, []))

    outcome.fails(code, words, start="snapmig: s: ")
    assert [path.name for path in place.iterdir()] == ["s"]


def test_a_damaged_packet_is_named_by_a_restore(place, cli, good):
    """The error has the packet's number and its offset in the file, and no image appears."""
    ram.write(place / "s", _damaged(good, 9))
    outcome = cli("restore", "s", "r")

    place_of_it = f"packet 9: offset {PACKET + 9 * PACKET:#x}"
    outcome.fails(3, out="", start=f"snapmig: s: {place_of_it}: checksum of the stored bytes is 0x")
    assert [path.name for path in place.iterdir()] == ["s"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_verify_lists_all_damaged_packets(place, cli, good, jobs):
    """Each damaged packet has a line, in order, whoever checked it; and they are counted."""
    ram.write(place / "s", _damaged(good, 0, 3, 4, 15))
    outcome = cli("verify", "s", "-j", jobs)

    assert [line.split(": ")[:3] for line in outcome.err.splitlines()] == [
        ["snapmig", "s", f"packet {packet}"] for packet in (0, 3, 4, 15)
    ]
    outcome.fails(3)
    assert outcome.lines == [
        "s: damaged, 4 of 16 packets",
        "  ram at 0x0, 512.0 KiB",
        "  ram at 0x180000, 1.0 MiB",
        "  ram at 0x780000, 512.0 KiB",
    ]


def test_verify_counts_more_damage_than_it_lists(place):
    """All damaged packets are counted, even if a batch has more than are described."""
    content = ram.text(300 * 16).tobytes()
    ram.write(place / "a", content)
    snapmig.save("a", "s", packet_size="64K")
    parts = slots.read("s")
    raw = bytearray((place / "s").read_bytes())
    for slot in parts.slots:
        raw[slot.offset + 5] ^= 1
    ram.write(place / "t", bytes(raw))
    result = snapmig.verify("t")

    assert (result.damaged_packets, result.packets, len(result.problems)) == (300, 300, 40)


def test_quick_verify_does_not_read_packets(place, cli, good):
    """With --quick, damage inside a packet is not searched."""
    ram.write(place / "s", _damaged(good, 9))

    cli("verify", "--quick", "s").ok()


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_a_damaged_index_record_is_named(place, cli, good, quick):
    """A damaged record is found with and without --quick, with its packet."""
    raw = bytearray(good)
    raw[8192 + 5 * 128 + 40] ^= 1
    ram.write(place / "s", bytes(raw))
    outcome = cli("verify", "s", *quick)

    outcome.fails(
        3, "snapmig: s: packet 5: index record's checksum is 0x", "snapmig: s: index digest is "
    )


def test_a_damaged_index_is_no_info(place, cli, good):
    """Nothing is printed about a snapshot with a damaged index."""
    raw = bytearray(good)
    raw[8192 + 5 * 128 + 40] ^= 1
    ram.write(place / "s", bytes(raw))
    outcome = cli("info", "s")

    outcome.fails(3, out="")


def test_a_damaged_attachment_is_named(place, cli, good):
    """Verify and readers of an attachment find its damage, a restore does not."""
    raw = bytearray(good)
    raw[PACKET + 16 * PACKET + 2000] ^= 1
    ram.write(place / "s", bytes(raw))
    outcome = cli("verify", "s")

    outcome.fails(3, "s: attachment 'state': ")
    cli("restore", "s", "r").ok()


def test_a_good_packet_of_a_damaged_snapshot_can_be_read(place, good):
    """Random access returns sound data and refuses damaged data."""
    ram.write(place / "s", _damaged(good, 9))
    with snapmig.open("s") as snapshot:
        whole = snapshot.read(0, 9 * PACKET)
        with pytest.raises(snapmig.CorruptSnapshotError) as caught:
            snapshot.read(9 * PACKET, 1)

    assert (whole, caught.value.packet) == (CONTENT[: 9 * PACKET], 9)


def test_a_packet_that_decodes_to_other_pages_is_found(place, cli, good):
    """A right checksum over wrong bytes is found by the digest of the pages."""
    raw = bytearray(good)
    other = slots.read(ram.write(place / "whole", good)).slots[3]
    record = bytearray(raw[8192 + 2 * 128 : 8192 + 3 * 128])
    raw[3 * PACKET : 3 * PACKET + len(other.stored)] = other.stored
    struct.pack_into("<I", record, 16, len(other.stored))
    struct.pack_into("<I", record, 24, zlib.crc32(other.stored))
    struct.pack_into("<I", record, 28, 0)
    struct.pack_into("<I", record, 28, zlib.crc32(record))
    raw[8192 + 2 * 128 : 8192 + 3 * 128] = record
    digest = hashlib.sha256(raw[8192 : 8192 + 16 * 128]).digest()
    ram.write(place / "s", _with_superblock(bytes(raw), index_digest=digest))
    outcome = cli("restore", "s", "r")

    outcome.fails(3, "s: packet 2: digest of the page contents is")


def test_a_failure_in_place_says_what_it_left(place, cli, good):
    """A damaged packet ends a restore in place with code 3, and the user learns of the image."""
    ram.write(place / "s", _damaged(good, 9))
    ram.write(place / "r", bytes(len(CONTENT)))
    outcome = cli("restore", "--in-place", "s", "r")

    outcome.fails(3, "snapmig: s: packet 9: ")
    assert outcome.err.endswith("; r is only partly restored now\n")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_packet_is_not_written_in_place(place, good, jobs):
    """Pages of a packet that failed its check are not written to a guest."""
    ram.write(place / "s", _damaged(good, 9))
    ram.write(place / "r", bytes(len(CONTENT)))
    with pytest.raises(snapmig.CorruptSnapshotError):
        snapmig.restore("s", "r", in_place=True, jobs=jobs)

    assert (place / "r").read_bytes()[9 * PACKET : 10 * PACKET] == bytes(PACKET)


def test_all_snapshots_are_verified(place, cli, good):
    """Snapshots after a damaged one are still checked."""
    ram.write(place / "1", _damaged(good, 9))
    ram.write(place / "2", good)
    ram.write(place / "3", b"")
    outcome = cli("verify", "1", "2", "3")

    outcome.fails(3)
    ends = [line.split(",")[0] for line in outcome.lines if not line.startswith(" ")]
    assert ends == ["1: damaged", "2: ok", "3: damaged"]


def test_a_missing_snapshot_does_not_end_a_verification(place, cli, good):
    """Snapshots after an unreadable one are still checked."""
    ram.write(place / "2", good)
    outcome = cli("verify", "1", "2")

    outcome.fails(1, "1: No such file")
    assert "2: ok" in outcome.out
