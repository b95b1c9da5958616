"""Facts about page digests that hold for all ways to save: they are those of the pages."""

import itertools

import pytest

import snapmig
from snapmig.container.format import DEFAULT_PACKET_SIZE, Layout
from snapmig.encodings.compressions import PacketSettings
from snapmig.images.formats import open_image
from snapmig.operations.options.save import SaveOptions
from snapmig.operations.runs.save import open_save_run
from tests.support import digests, kinds, ram, slots
from tests.support.steady import STEADY
from tests.support.sweep import sweep

MIB = 1 << 20
SIZE = 12 * MIB + 12_345
OLD = ram.mixed(SIZE, 11) + bytes(8 * MIB)
PACKET = 128 << 10
LAYOUTS = ("fixed", "packed")


def _changed(content):
    # Pages of many packets are others, or become zero, or are not zero any more.
    made = bytearray(content)
    for packet in range(3, len(made) // PACKET, 5):
        at = packet * PACKET
        for page in range(4, 12):
            made[at + page * ram.PAGE + 5 : at + page * ram.PAGE + 9] = b"word"
        made[at + 2 * ram.PAGE : at + 3 * ram.PAGE] = bytes(ram.PAGE)
    made[7 * PACKET : 9 * PACKET] = bytes(2 * PACKET)
    made[-PACKET:] = ram.noise(PACKET // ram.PAGE).tobytes()
    return bytes(made)


NEW = _changed(OLD)


@pytest.fixture(scope="module")
def images(shared_shm):
    """Give an image of 20 MiB, and one that came of it."""
    return ram.write(shared_shm / "old", OLD), ram.write(shared_shm / "new", NEW)


@pytest.fixture(scope="module")
def parents(shared_shm, images):
    """Give snapshots of the first image, with page digests and without."""
    made = {own: shared_shm / f"parent-{own}" for own in (True, False)}
    for own, path in made.items():
        snapmig.save(images[0], path, page_digests=own, format="raw")
    return made


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_they_are_those_of_the_pages(shm, images, layout, jobs):
    """All digests are what the specification says, whoever wrote them."""
    way = {"layout": layout, "packet_size": PACKET, "jobs": jobs}
    result = snapmig.save(images[0], shm / "s", page_digests=True, format="raw", **way)

    assert (digests.read(shm / "s"), result.page_digests) == (digests.expected(OLD, PACKET), True)


WAYS = list(itertools.product(LAYOUTS, (1, 3), (True, False)))
ONES = [("fixed", 3, True), ("packed", 1, False)]


@pytest.mark.parametrize(("layout", "jobs", "parents_own"), sweep(WAYS, lambda each: each in ONES))
def test_those_of_an_increment_are_those_of_its_pages(shm, images, layout, jobs, parents_own):
    """Also of pages that are the parent's, whether copied from there or computed."""
    way = {"layout": layout, "packet_size": PACKET, "jobs": jobs}
    snapmig.save(images[0], shm / "1", page_digests=parents_own, format="raw", **way)
    snapmig.save(images[1], shm / "2", parent=shm / "1", page_digests=True, format="raw", **way)

    assert digests.read(shm / "2") == digests.expected(NEW, PACKET)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinds_do_not_depend_on_them(shm, images, layout):
    """Compared by digests or by bytes, the same pages are the parent's."""
    way = {"layout": layout, "packet_size": PACKET, "deltas": False}
    found = []
    for name in ("with", "without"):
        snapmig.save(images[0], shm / f"{name}-1", page_digests=name == "with", format="raw", **way)
        snapmig.save(images[1], shm / f"{name}-2", parent=shm / f"{name}-1", format="raw", **way)
        parts = slots.read(shm / f"{name}-2")
        found.append((kinds.read(shm / f"{name}-2"), [slot.stored for slot in parts.slots]))
    (one, stored), (other, stored_too) = found

    assert [each.kinds for each in one] == [each.kinds for each in other]
    assert stored == stored_too


@pytest.mark.parametrize("way", [{}, {"page_digests": True}, {"page_digests": False}], ids=str)
@pytest.mark.parametrize("parents_own", [None, True, False])
def test_they_are_kept_unless_it_is_said(shm, images, parents, parents_own, way):
    """Every snapshot may become a parent, whether it has one, and that one has them, or not."""
    older = {} if parents_own is None else {"parent": parents[parents_own]}
    result = snapmig.save(images[1], shm / "2", format="raw", **older, **way)
    expected = way.get("page_digests", True)

    assert result.page_digests == expected == snapmig.info(shm / "2").page_digests
    kept = digests.expected(NEW, DEFAULT_PACKET_SIZE) if expected else None
    assert digests.read(shm / "2") == kept


@pytest.mark.parametrize(
    ("parents_own", "deltas", "any_there"),
    [
        (True, None, False),
        (True, True, True),
        (True, False, False),
        (False, None, True),
        (False, True, True),
        (False, False, False),
    ],
)
def test_differences_are_stored_where_the_parent_is_decoded(
    shm, images, parents, parents_own, deltas, any_there
):
    """With page digests only where they are asked for, and the contents are the same."""
    options = {"parent": parents[parents_own], "deltas": deltas, "format": "raw"}
    result = snapmig.save(images[1], shm / "2", **options)
    snapmig.restore(shm / "2", shm / "r", follow_remote_parents=True)

    assert (result.delta_pages > 0) == any_there
    assert (shm / "r").read_bytes() == NEW


def test_packets_without_pages_have_holes(shm):
    """The digests of a sparse guest take no more than those of its pages."""
    image = ram.write_sparse(shm / "a", 1 << 30, {0: b"x", 512 << 20: b"y"})
    plain, digested = (
        snapmig.save(image, shm / name, page_digests=name == "d", format="raw").disk_size
        for name in ("p", "d")
    )

    assert digested - plain == 2 * ram.PAGE


def test_shares_write_theirs(shm, images):
    """Shares together have the digests, and all other bytes, of one save."""
    way = {"page_digests": True, "packet_size": "64K", "format": "raw", **STEADY}
    for share in (2, 3, 1):
        snapmig.save(images[0], shm / "s", share=f"{share}/3", **way)
    snapmig.commit(shm / "s")
    snapmig.save(images[0], shm / "one", **way)

    assert (shm / "s").read_bytes()[4096:] == (shm / "one").read_bytes()[4096:]


def test_shares_agree_on_them(shm, images):
    """A share without page digests is not one of a snapshot that has them."""
    snapmig.save(images[0], shm / "s", share="1/2", format="raw")
    with pytest.raises(snapmig.UsageError, match="shares have page_digests True, and this one has"):
        snapmig.save(images[0], shm / "s", share="2/2", page_digests=False, format="raw")


@pytest.mark.parametrize("with_parent", [True, False])
def test_a_second_look_writes_them_again(shm, images, with_parent):
    """After a live save they are those of the moment at which the guest stood still."""
    parent = None
    if with_parent:
        parent = shm / "parent"
        snapmig.save(images[0], parent, packet_size=PACKET, page_digests=True, format="raw")
    image = ram.write(shm / "a", OLD)
    options = SaveOptions(
        2, PacketSettings(), PACKET, Layout.FIXED, {}, force=False, live=True,
        progress=None, parent=parent, page_digests=True,
    )  # fmt: skip
    source = open_image(str(image), "raw")
    with open_save_run(source, shm / "s", options) as run:
        run.write_pass()
        ram.write(image, NEW)
        run.write_pass(changed_only=True)
        run.finish({})
    source.close()

    assert digests.read(shm / "s") == digests.expected(NEW, PACKET)
    assert snapmig.verify(shm / "s").problems == ()


VERBS = list(itertools.product((None, True, False), ("merge", "repack", "rebase")))
ESSENTIAL = [(None, "merge"), (True, "rebase"), (False, "repack")]


@pytest.mark.parametrize(("given", "verb"), sweep(VERBS, lambda each: each in ESSENTIAL))
def test_verbs_that_save_again_keep_them(shm, images, verb, given):
    """A snapshot made of another has page digests where that one had, unless told otherwise."""
    snapmig.save(images[0], shm / "1", packet_size=PACKET, format="raw")
    snapmig.save(images[1], shm / "2", parent=shm / "1", page_digests=True, format="raw")
    if verb == "rebase":
        made, more = shm / "2", {"parent": shm / "1"}
        snapmig.rebase(made, page_digests=given, **more)
    else:
        made = shm / "3"
        getattr(snapmig, verb)(shm / "2", made, page_digests=given)
    expected = None if given is False else digests.expected(NEW, PACKET)

    assert digests.read(made) == expected
    assert snapmig.verify(made).problems == ()


@pytest.mark.parametrize("own", [(True, True), (True, False), (False, False)])
def test_a_diff_is_the_same_with_and_without(shm, images, own):
    """The way of comparison does not decide on the pages that differ."""
    for image, digested in zip(images, own, strict=True):
        snapmig.save(
            image, shm / image.name, page_digests=digested, packet_size=PACKET, format="raw"
        )
    found = snapmig.diff(shm / "old", shm / "new")
    pages = range(0, len(OLD), ram.PAGE)
    expected = sum(OLD[at : at + ram.PAGE] != NEW[at : at + ram.PAGE] for at in pages)

    assert found.changed_pages == expected
