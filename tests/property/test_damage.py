"""Facts about all damage: it is refused, or it harms nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapmig
from tests.property.contents import LAYOUTS, directory, flipped, opened, restored
from tests.property.examples import examples
from tests.support import ram

CONTENT = ram.mixed(200_000, 7)
ATTACHED = {"state": ram.text(3).tobytes(), "note": b"x"}
WHOLE = (CONTENT, ATTACHED)
REFUSED = (3, 4)


@pytest.fixture(scope="module", params=LAYOUTS)
def snapshot(request, shared_shm):
    """Give the bytes of a snapshot of four packets with two attachments."""
    ram.write(shared_shm / "a", CONTENT)
    path = shared_shm / request.param
    way = {"layout": request.param, "packet_size": "64K", "attach": ATTACHED, "jobs": 1}
    snapmig.save(shared_shm / "a", path, format="raw", **way)
    return path.read_bytes()


@pytest.fixture(scope="module", params=["zstd", "lz4", "none"])
def other(request, shared_shm):
    """Give the bytes of such a snapshot in another compression."""
    ram.write(shared_shm / "a", CONTENT)
    path = shared_shm / request.param
    way = {"compression": request.param, "layout": "packed", "packet_size": "64K", "jobs": 1}
    snapmig.save(shared_shm / "a", path, attach=ATTACHED, format="raw", **way)
    return path.read_bytes()


@examples(60)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_is_refused_or_harmless(snapshot, where):
    """A snapshot with any one bit flipped is refused, or everything in it reads the same."""
    with directory() as place:
        ram.write(place / "s", flipped(snapshot, int(where * len(snapshot) * 8)))

        assert opened(place / "s") in (WHOLE, *REFUSED)


@examples(40)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_of_another_compression_is_refused_or_harmless(other, where):
    """The same is true of packets that are not deflate."""
    with directory() as place:
        ram.write(place / "s", flipped(other, int(where * len(other) * 8)))

        assert opened(place / "s") in (WHOLE, *REFUSED)


@examples(30)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_is_verified_as_it_is_restored(snapshot, where):
    """Where verify finds nothing in a flipped bit, a restore gives what was saved."""
    with directory() as place:
        ram.write(place / "s", flipped(snapshot, int(where * len(snapshot) * 8)))
        code = snapmig.verify(place / "s", jobs=1).exit_code

        assert (code, restored(place / "s", place / "r", jobs=1)) in [
            (0, CONTENT),
            (3, CONTENT),  # the damage is in an attachment, or in the index digest
            (3, 3),
            (4, 4),
        ]


@pytest.mark.parametrize("part", range(8))
def test_each_bit_of_superblock_and_index_is_guarded(snapshot, shm, part):
    """Every single bit of the superblock, the tables and the index is under a checksum."""
    bits = [*range(part, 320 * 8, 8), *range(4096 * 8 + part, 4416 * 8, 8)]
    bits += range(8192 * 8 + part, (8192 + 4 * 104) * 8, 8)
    outcomes = {opened(ram.write(shm / "s", flipped(snapshot, bit))) for bit in bits}

    assert outcomes <= set(REFUSED)


@examples(60)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_truncated_snapshot_is_refused(snapshot, where):
    """A snapshot that lost any number of bytes at its end is corrupt."""
    with directory() as place:
        ram.write(place / "s", snapshot[: int(where * len(snapshot))])

        assert opened(place / "s") == 3


@pytest.mark.parametrize("size", [*range(64), 4095, 4096, 4097, 8191, 8192, -4096, -1])
def test_a_snapshot_of_any_first_bytes_is_refused(snapshot, shm, size):
    """The first bytes of a snapshot alone are corrupt for verify and restore."""
    ram.write(shm / "s", snapshot[:size])

    assert (snapmig.verify(shm / "s").exit_code, restored(shm / "s", shm / "r")) == (3, 3)


@examples(40)
@given(extra=st.binary(min_size=1, max_size=5000))
def test_a_snapshot_with_more_bytes_is_refused(snapshot, extra):
    """Bytes appended to a snapshot make it corrupt."""
    with directory() as place:
        ram.write(place / "s", snapshot + extra)

        assert opened(place / "s") == 3


@examples(60)
@given(offset=st.integers(0, 300_000), junk=st.binary(min_size=1, max_size=20_000))
def test_overwritten_bytes_are_refused_or_harmless(snapshot, offset, junk):
    """A snapshot with any range overwritten is refused, or everything in it reads the same."""
    offset %= len(snapshot)
    with directory() as place:
        raw = snapshot[:offset] + junk + snapshot[offset + len(junk) :]
        ram.write(place / "s", raw[: len(snapshot)])

        assert opened(place / "s") in (WHOLE, *REFUSED)


@examples(60)
@given(start=st.integers(0, 60), count=st.integers(1, 60))
def test_blocks_that_a_disk_lost_are_refused_or_harmless(snapshot, start, count):
    """A snapshot with any blocks of 4 KiB gone to zeros is refused or reads the same."""
    with directory() as place:
        raw = bytearray(snapshot)
        raw[start * 4096 : (start + count) * 4096] = bytes(
            len(raw[start * 4096 : (start + count) * 4096])
        )
        ram.write(place / "s", bytes(raw))

        assert opened(place / "s") in (WHOLE, *REFUSED)
