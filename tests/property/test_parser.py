"""Facts about all files: a reader takes a snapshot or refuses it, and never breaks."""

import hashlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapmig
from snapmig.container.format import Superblock, superblock_fields
from snapmig.container.index import record_dtype, seal_records
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from tests.property.contents import LAYOUTS, directory, opened
from tests.property.examples import examples
from tests.support import ram

CONTENT = ram.mixed(200_000, 7)
DTYPE = record_dtype(64 << 10)
NUMBERS = st.one_of(
    st.integers(0, 8), st.integers(0, 300_000), st.sampled_from([4096, 8192, 65536, 1 << 63]),
    st.integers(0, (1 << 64) - 1),
)  # fmt: skip
INTEGERS = {
    name: size for _, size, name in superblock_fields() if size in (1, 2, 4, 8) and name != "magic"
}


@pytest.fixture(scope="module", params=LAYOUTS)
def snapshot(request, shared_shm):
    """Give the bytes of a snapshot of four packets with an attachment."""
    ram.write(shared_shm / "a", CONTENT)
    path = shared_shm / request.param
    way = {"layout": request.param, "packet_size": "64K", "attach": {"a": b"x"}, "jobs": 1}
    way["address"] = {"ram": 0, "ram@64K": "4G"}
    snapmig.save(shared_shm / "a", path, format="raw", **way)
    return path.read_bytes()


def _with_superblock(raw, **changes):
    return Superblock.unpack(raw[:4096])._replace(**changes).pack() + raw[4096:]


def _with_tables(raw):
    # The snapshot with the checksums and the digest that belong to its tables.
    s = Superblock.unpack(raw[:4096])
    tables = {
        "block": raw[s.block_table_offset :][: 320 * s.block_count],
        "attachment": raw[s.attachment_table_offset :][: 384 * s.attachment_count],
        "piece": raw[s.piece_table_offset :][: 32 * s.piece_count],
    }
    checksums = {f"{name}_table_checksum": zlib.crc32(table) for name, table in tables.items()}
    digest = hashlib.sha256(b"".join(tables.values())).digest()
    return _with_superblock(raw, tables_digest=digest, **checksums)


def _with_records(raw, records):
    # The snapshot with other records, sealed, and the digest of the index that belongs to them.
    seal_records(records)
    index = records.tobytes()
    raw = raw[:8192] + index + raw[8192 + len(index) :]
    return _with_superblock(raw, index_digest=hashlib.sha256(index).digest())


def _refusal(read, *arguments):
    # The exit code of the refusal, 0 when there is none; anything else that is raised goes on.
    try:
        read(*arguments)
    except SnapmigError as error:
        return error.exit_code
    return 0


@examples(100)
@given(raw=st.binary(max_size=9000))
def test_random_bytes_are_no_snapshot(raw):
    """Bytes drawn at random are corrupt, and nothing else happens."""
    with directory() as place:
        ram.write(place / "s", raw)

        with pytest.raises(CorruptSnapshotError):
            snapmig.open(place / "s")


@examples(100)
@given(rest=st.binary(max_size=9000))
def test_random_bytes_after_the_magic_number_are_no_snapshot(rest):
    """The magic number alone makes no snapshot."""
    with directory() as place:
        ram.write(place / "s", b"\x93SNAPMIG" + rest)

        with pytest.raises((CorruptSnapshotError, UnsupportedError)):
            snapmig.open(place / "s")


@examples(200)
@given(changes=st.dictionaries(st.sampled_from(sorted(INTEGERS)), NUMBERS, min_size=1, max_size=3))
def test_a_superblock_that_lies_raises_nothing_but_refusals(snapshot, changes):
    """A superblock with other numbers and a right checksum is read or refused."""
    cut = {name: value % (1 << 8 * INTEGERS[name]) for name, value in changes.items()}
    with directory() as place:
        ram.write(place / "s", _with_superblock(snapshot, **cut))

        assert _refusal(snapmig.info, place / "s") in (0, 3, 4)
        assert opened(place / "s") in ((CONTENT, {"a": b"x"}), (CONTENT, {}), 3, 4)


@examples(150)
@given(
    packet=st.integers(0, 3),
    name=st.sampled_from(["packet", "offset", "stored_size", "encoding", "flags", "reserved_1"]),
    value=NUMBERS,
)
def test_a_record_that_lies_raises_nothing_but_refusals(snapshot, packet, name, value):
    """An index record with another number and a right checksum is read or refused."""
    records = np.frombuffer(snapshot[8192 : 8192 + 4 * 104], DTYPE).copy()
    records[name][packet] = value % (1 << 8 * DTYPE[name].itemsize)
    with directory() as place:
        ram.write(place / "s", _with_records(snapshot, records))

        assert opened(place / "s") in ((CONTENT, {"a": b"x"}), 3, 4)


@examples(100)
@given(packet=st.integers(0, 3), kinds=st.binary(min_size=4, max_size=4))
def test_page_kinds_that_lie_raise_nothing_but_refusals(snapshot, packet, kinds):
    """A record with other page kinds and a right checksum is read or refused."""
    records = np.frombuffer(snapshot[8192 : 8192 + 4 * 104], DTYPE).copy()
    records["kinds"][packet] = np.frombuffer(kinds, np.uint8)
    with directory() as place:
        ram.write(place / "s", _with_records(snapshot, records))

        assert opened(place / "s") in ((CONTENT, {"a": b"x"}), 3, 4)


@examples(100)
@given(entry=st.binary(min_size=320, max_size=320))
def test_a_block_table_that_lies_raises_nothing_but_refusals(snapshot, entry):
    """A block table of random bytes with a right checksum is refused."""
    raw = snapshot[:4096] + entry + snapshot[4416:]
    with directory() as place:
        ram.write(place / "s", _with_tables(raw))

        assert opened(place / "s") in (3, 4)


@examples(100)
@given(
    name=st.binary(max_size=300),
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 255)),
    digest=st.binary(min_size=32, max_size=32),
)
def test_an_attachment_table_that_lies_raises_nothing_but_refusals(snapshot, name, numbers, digest):
    """An attachment table of other numbers with a right checksum is refused."""
    entry = struct.pack("<256sQQQB7x32s64x", name, *numbers, digest)
    at = Superblock.unpack(snapshot[:4096]).attachment_table_offset
    raw = snapshot[:at] + entry + snapshot[at + 384 :]
    with directory() as place:
        ram.write(place / "s", _with_tables(raw))

        assert opened(place / "s") in (3, 4)


@examples(100)
@given(
    entries=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=2, max_size=2)
)
def test_a_piece_table_that_lies_raises_nothing_but_refusals(snapshot, entries):
    """A piece table of other numbers with a right checksum is read or refused."""
    table = b"".join(
        struct.pack("<QQQII", *each[:3], *(number % (1 << 32) for number in each[3:]))
        for each in entries
    )
    at = Superblock.unpack(snapshot[:4096]).piece_table_offset
    raw = snapshot[:at] + table
    with directory() as place:
        ram.write(place / "s", _with_tables(raw))

        assert opened(place / "s") in ((CONTENT, {"a": b"x"}), 3)


@examples(100)
@given(
    name=st.sampled_from([name for name in Superblock._fields if name in INTEGERS]),
    value=st.integers(0, (1 << 64) - 1),
)
def test_a_superblock_is_unpacked_or_refused(name, value):
    """The superblock alone with any number in any field is read or refused."""
    good = Superblock(record_size=128, block_count=1)
    raw = good._replace(**{name: value % (1 << 8 * INTEGERS[name])}).pack()

    assert _refusal(Superblock.unpack, raw) in (0, 3, 4)
