"""Facts about all chains: whatever changed between snapshots, each is what was saved."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapmig
from tests.property.changes import COMPRESSIONS, PACKET, WAYS, chains, steady
from tests.property.contents import LAYOUTS, PACKET_SIZES, directory
from tests.property.examples import examples
from tests.support import kinds, ram, slots


def saved(place, images, ways, **options):
    """Save images, each with the one before it as parent; return the snapshots' paths."""
    paths = []
    for number, (content, way) in enumerate(zip(images, ways, strict=False)):
        ram.write(place / f"{number}.ram", content)
        parent = paths[-1] if paths else None
        paths.append(place / f"{number}.snap")
        snapmig.save(
            place / f"{number}.ram", paths[-1], parent=parent, format="raw", **{**options, **way}
        )
    return paths


def whole(path):
    """Return all RAM of a snapshot."""
    with snapmig.open(path) as snapshot:
        return snapshot.read(0, len(snapshot))


MANY_WAYS = st.lists(WAYS, min_size=4, max_size=4)


@examples(10)
@given(images=chains(), ways=MANY_WAYS, jobs=st.integers(1, 2), size=st.sampled_from(PACKET_SIZES))
def test_each_snapshot_of_a_chain_is_what_was_saved(images, ways, jobs, size):
    """A restore of any member gives its image, whatever compressions and layouts it is made of."""
    with directory() as place:
        for number, path in enumerate(saved(place, images, ways, packet_size=size)):
            snapmig.restore(path, place / "r", force=True, jobs=jobs)

            assert (place / "r").read_bytes() == images[number]


@examples(10)
@given(images=chains(), ways=MANY_WAYS, old=st.integers(0, 255))
def test_a_restore_in_place_is_the_image(images, ways, old):
    """Pages that are zero in the youngest only are zeros in an image that held something else."""
    with directory() as place:
        path = saved(place, images, ways, packet_size=PACKET)[-1]
        ram.write(place / "r", bytes([old]) * len(images[-1]))
        snapmig.restore(path, place / "r", in_place=True, jobs=1)

        assert (place / "r").read_bytes() == images[-1]


@examples(9)
@given(images=chains(), ways=MANY_WAYS)
def test_a_chain_is_verified(images, ways):
    """Nothing is wrong with any member."""
    with directory() as place:
        paths = saved(place, images, ways, packet_size=PACKET)

        assert [snapmig.verify(path, jobs=1).problems for path in paths] == [()] * len(paths)


@examples(9)
@given(images=chains(), ways=MANY_WAYS, order=st.randoms())
def test_pages_read_one_by_one_are_those_of_the_image(images, ways, order):
    """Random access gives each page of the youngest, in any order of asking."""
    content = images[-1]
    numbers = list(range(-(-len(content) // ram.PAGE)))
    order.shuffle(numbers)
    with directory() as place:
        path = saved(place, images, ways, packet_size=PACKET)[-1]
        with snapmig.open(path) as snapshot:
            found = {number: snapshot.page(number).tobytes() for number in numbers}

    assert b"".join(found[number] for number in sorted(numbers)) == content


@examples(9)
@given(images=chains(least=3), ways=MANY_WAYS, size=st.sampled_from([PACKET, 2 * PACKET]))
def test_kinds_are_those_of_the_contents(images, ways, size):
    """Zero pages have kind 0, the parent's pages are the parent's, and only others are stored."""
    with directory() as place:
        paths = saved(place, images, ways, packet_size=size)
        for number, path in enumerate(paths[1:], 1):
            found = kinds.without_deltas(kinds.read(path))

            assert found == kinds.expected(images[number], images[number - 1], size)


@examples(9)
@given(images=chains(most=2), way=WAYS)
def test_differences_are_stored_only_where_they_are_smaller(images, way):
    """A packet takes what its changed pages take alone, and less where it has differences."""
    one, other = images
    way = steady(way)
    expected = kinds.expected(other, one, PACKET)
    changes = bytearray(other)
    for number, kind in enumerate(kind for packet in expected for kind in packet):
        if kind == kinds.SAME:
            end = min((number + 1) * ram.PAGE, len(changes))
            changes[number * ram.PAGE : end] = bytes(end - number * ram.PAGE)
    with directory() as place:
        found = kinds.read(saved(place, images, [way, way], packet_size=PACKET)[1])
        ram.write(place / "changes", bytes(changes))
        snapmig.save(place / "changes", place / "plain", packet_size=PACKET, format="raw", **way)
        plain_sizes = [packet.stored_size for packet in kinds.read(place / "plain")]

    for packet, size in zip(found, plain_sizes, strict=True):
        if kinds.DELTA in packet.kinds:
            assert packet.stored_size < size
        else:
            assert packet.stored_size == size


@examples(9)
@given(images=chains(), ways=MANY_WAYS)
def test_index_and_slots_are_the_same_for_any_jobs(images, ways):
    """However many workers saved it, an increment has the same index and the same slots."""
    with directory() as place:
        paths = saved(place, images[:-1], ways, packet_size=PACKET)
        ram.write(place / "a", images[-1])
        way = {**steady(ways[-1]), "parent": paths[-1]}
        parts = []
        for jobs in (1, 2, 4):
            snapmig.save(
                place / "a", place / "s", force=True, format="raw", **{**way, "jobs": jobs}
            )
            parts.append(slots.read(place / "s"))

    assert parts[0].index == parts[1].index == parts[2].index
    assert parts[0].data == parts[1].data == parts[2].data


@examples(9)
@given(images=chains(), ways=MANY_WAYS, jobs=st.integers(1, 2))
def test_a_merged_snapshot_stands_alone(images, ways, jobs):
    """Without its parents a merged snapshot is what the youngest was."""
    with directory() as place:
        paths = saved(place, images, ways, packet_size=PACKET)
        snapmig.merge(paths[-1], place / "merged", jobs=jobs)
        for path in paths:
            path.unlink()

        assert (whole(place / "merged"), len(snapmig.chain(place / "merged"))) == (images[-1], 1)


@examples(10)
@given(images=chains(), ways=MANY_WAYS)
def test_a_merged_snapshot_is_as_if_saved_alone(images, ways):
    """A merged snapshot stores the same as a save without a parent in the same form."""
    ways = [{**way, "compression": "zstd"} for way in ways]
    with directory() as place:
        paths = saved(place, images, ways, packet_size=PACKET)
        snapmig.merge(paths[-1], place / "merged", jobs=1)
        ram.write(place / "a", images[-1])
        way = {**ways[len(images) - 1], "packet_size": PACKET}
        if snapmig.info(place / "merged").packets["zstd"]:
            snapmig.save(place / "a", place / "alone", format="raw", **way)
            one, other = slots.read(place / "merged"), slots.read(place / "alone")

            assert (one.index, one.data) == (other.index, other.data)


@examples(9)
@given(images=chains(least=3), ways=MANY_WAYS, onto=st.integers(0, 3))
def test_a_rebased_snapshot_is_what_it_was(images, ways, onto):
    """On any other member as parent the youngest keeps its contents, and needs only that one."""
    onto %= len(images) - 1
    with directory() as place:
        paths = saved(place, images, ways, packet_size=PACKET)
        snapmig.rebase(paths[-1], parent=paths[onto], jobs=1)
        for path in paths[onto + 1 : -1]:
            path.unlink()

        assert (whole(paths[-1]), len(snapmig.chain(paths[-1]))) == (images[-1], onto + 2)
        found = kinds.without_deltas(kinds.read(paths[-1]))
        assert found == kinds.expected(images[-1], images[onto], PACKET)


@examples(9)
@given(
    images=chains(),
    ways=MANY_WAYS,
    compression=st.sampled_from(COMPRESSIONS),
    layout=st.sampled_from(LAYOUTS),
)
def test_a_repacked_increment_is_what_it_was(images, ways, compression, layout):
    """In any compression and layout an increment keeps its contents and its parent."""
    with directory() as place:
        paths = saved(place, images, ways, packet_size=PACKET)
        out = place / "out"
        snapmig.repack(paths[-1], out, compression=compression, layout=layout, jobs=1)
        found = snapmig.info(out)

        assert (whole(out), len(snapmig.chain(out)), found.layout) == (
            images[-1],
            len(images),
            layout,
        )


@examples(9)
@given(
    images=chains(),
    ways=MANY_WAYS,
    way=WAYS,
    sizes=st.tuples(st.sampled_from(PACKET_SIZES), st.sampled_from(PACKET_SIZES)),
)
def test_a_snapshot_repacked_to_other_packets_is_what_it_was(images, ways, way, sizes):
    """Packets of a merged chain may become larger or smaller."""
    with directory() as place:
        paths = saved(place, images, ways, packet_size=sizes[0])
        snapmig.merge(paths[-1], place / "merged", jobs=1)
        snapmig.repack(place / "merged", place / "out", packet_size=sizes[1], **way)
        found = snapmig.info(place / "out")

        assert (whole(place / "out"), found.layout) == (images[-1], way["layout"])


@examples(20)
@given(images=chains(), ways=MANY_WAYS, pair=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_a_diff_is_that_of_the_images(images, ways, pair):
    """Between any two members those pages differ that differ between their images."""
    one, other = (number % len(images) for number in pair)
    pages = [np.frombuffer(images[n].ljust(1 << 20, b"\0"), np.uint8) for n in (one, other)]
    differ = (pages[0] != pages[1]).reshape(-1, ram.PAGE).any(axis=1)
    with directory() as place:
        paths = saved(place, images, ways, packet_size=PACKET)
        (found,) = snapmig.diff(paths[one], paths[other], jobs=2).blocks

    shown = np.zeros(len(differ), np.bool_)
    for part in found.ranges:
        shown[part.offset // ram.PAGE :][: part.pages] = True
        assert not shown[part.offset // ram.PAGE - 1] or part.offset == 0
    assert (shown.tolist(), found.changed_pages) == (differ.tolist(), int(differ.sum()))


@examples(10)
@given(guests=st.lists(chains(least=2, most=2), min_size=2, max_size=3), ways=MANY_WAYS)
def test_chains_of_several_ram_blocks(guests, ways):
    """Each RAM block comes back, together and alone, and differs where its image does."""
    with directory() as place:
        for moment in range(2):
            blocks = []
            for number, images in enumerate(guests):
                file = ram.write(place / f"{moment}-{number}", images[moment])
                block = snapmig.RamBlock.at(16 << 20 << number, len(images[moment]), f"b{number}")
                blocks.append((block, file))
            parent = None if moment == 0 else place / "s0"
            way = {**ways[moment], "parent": parent, "packet_size": PACKET}
            snapmig.save(blocks, place / f"s{moment}", **way)
        snapmig.restore(place / "s1", place / "one", block="b1", jobs=1)
        found = snapmig.diff(place / "s0", place / "s1", jobs=1)
        together = whole(place / "s1")

        assert together == b"".join(images[1] for images in guests)
        assert (place / "one").read_bytes() == guests[1][1]
    for number, (block, (one, other)) in enumerate(zip(found.blocks, guests, strict=True)):
        starts = [part.offset for part in block.ranges]
        assert bool(starts) == (one != other)
        assert [part.gpa for part in block.ranges] == [(16 << 20 << number) + at for at in starts]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_guest_that_did_not_change_stores_nothing(shm, layout):
    """The second snapshot of an idle guest has no stored byte."""
    ram.write(shm / "a", ram.mixed(3 << 20))
    snapmig.save(shm / "a", shm / "1", layout=layout, format="raw")
    result = snapmig.save(shm / "a", shm / "2", layout=layout, parent=shm / "1", format="raw")

    assert (result.stored_size, result.same_pages) == (0, result.data_pages)
