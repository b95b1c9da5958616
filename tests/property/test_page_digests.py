"""Facts about all chains and all damage, of snapshots with page digests."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapmig
from tests.property.changes import PACKET, WAYS, chains
from tests.property.contents import LAYOUTS, directory, flipped, opened, restored
from tests.property.examples import examples
from tests.support import digests, kinds, ram

HAS = st.lists(st.booleans(), min_size=4, max_size=4)
DELTAS = st.lists(st.sampled_from([None, True, False]), min_size=4, max_size=4)
MANY_WAYS = st.lists(WAYS, min_size=4, max_size=4)
CONTENT = ram.mixed(200_000, 7)
NEWER = CONTENT[:70_000] + b"changed" + CONTENT[70_007:]
REFUSED = (3, 4)


@examples(15)
@given(images=chains(), ways=MANY_WAYS, has=HAS, deltas=DELTAS)
def test_each_snapshot_of_a_chain_is_what_was_saved(images, ways, has, deltas):
    """Whatever members have page digests, all restore, verify, and store what they must."""
    with directory() as place:
        parent = None
        for number, content in enumerate(images):
            ram.write(place / "a", content)
            path = place / f"{number}.snap"
            words = {"page_digests": has[number], "deltas": deltas[number], "packet_size": PACKET}
            snapmig.save(place / "a", path, parent=parent, **words, format="raw", **ways[number])
            snapmig.restore(path, place / "r", force=True, jobs=1)

            assert (place / "r").read_bytes() == content
            assert snapmig.verify(path, jobs=1).problems == ()
            assert digests.read(path) in (None, digests.expected(content, PACKET))
            if parent is not None:
                found = kinds.without_deltas(kinds.read(path))
                assert found == kinds.expected(content, images[number - 1], PACKET)
            parent = path


@pytest.fixture(scope="module", params=LAYOUTS)
def snapshot(request, shared_shm):
    """Give the bytes of a snapshot of four packets with page digests."""
    ram.write(shared_shm / "a", CONTENT)
    way = {"layout": request.param, "packet_size": "64K", "jobs": 1, "page_digests": True}
    snapmig.save(shared_shm / "a", shared_shm / request.param, format="raw", **way)
    return (shared_shm / request.param).read_bytes()


@examples(60)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_is_refused_or_harmless(snapshot, where):
    """A snapshot with any one bit flipped is refused, or everything in it reads the same."""
    with directory() as place:
        ram.write(place / "s", flipped(snapshot, int(where * len(snapshot) * 8)))

        assert opened(place / "s") in ((CONTENT, {}), *REFUSED)


@examples(20)
@given(bit=st.integers(0, 4 * 256 * 8 - 1))
def test_a_flipped_bit_of_the_digests_is_found(snapshot, bit):
    """Verify finds it, a restore does not look, a save with that parent refuses it or is right."""
    with directory() as place:
        path = ram.write(place / "s", snapshot)
        ram.write(path, flipped(snapshot, digests.place(path)[0] * 8 + bit))
        ram.write(place / "new", NEWER)
        found = snapmig.verify(path, jobs=1)

        assert (found.exit_code, found.damaged_packets) == (3, 1)
        assert "checksum of the page digests" in found.problems[0]
        assert restored(path, place / "r", jobs=1) == CONTENT
        with suppress(snapmig.CorruptSnapshotError):
            snapmig.save(place / "new", place / "child", parent=path, jobs=1, format="raw")

            assert restored(place / "child", place / "r2", jobs=1) == NEWER


@pytest.mark.parametrize("part", range(8))
def test_each_bit_of_superblock_and_index_is_guarded(snapshot, shm, part):
    """The place of the digests, and the sums of them, are under a checksum too."""
    bits = [*range(part, 320 * 8, 8), *range(8192 * 8 + part, (8192 + 4 * 104) * 8, 8)]
    outcomes = {opened(ram.write(shm / "s", flipped(snapshot, bit))) for bit in bits}

    assert outcomes <= set(REFUSED)
