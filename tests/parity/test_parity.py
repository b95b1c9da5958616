"""Facts about ways to save that must not matter: jobs, and the layout."""

import itertools
from pathlib import Path

import pytest

import snapmig
from tests.support import ram, slots
from tests.support.steady import STEADY
from tests.support.sweep import sweep

MIB = 1 << 20
SIZE = 12 * MIB + 12_345
CONTENT = ram.mixed(SIZE, 11)
LAYOUTS = ("fixed", "packed")
JOBS = (1, 2, 4)


@pytest.fixture(scope="module")
def image(shared_shm):
    """Give an image of 12 MiB of everything, and a hole of 8 MiB at its end."""
    path = ram.write(shared_shm / "a", CONTENT)
    with path.open("r+b") as file:
        file.truncate(SIZE + 8 * MIB)
    return path


@pytest.fixture(scope="module")
def parts(shared_shm, image):
    """Give what snapshots consist of, by layout and number of jobs."""

    def save(layout, jobs):
        way = {"attach": {"state": CONTENT[:70_000]}, **STEADY}
        snapmig.save(
            image, shared_shm / "s", layout=layout, jobs=jobs, force=True, format="raw", **way
        )
        return slots.read(shared_shm / "s")

    return {(layout, jobs): save(layout, jobs) for layout in LAYOUTS for jobs in JOBS}


@pytest.mark.parametrize("jobs", JOBS[1:])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_index_does_not_depend_on_jobs(parts, layout, jobs):
    """One worker and several write the same index bytes."""
    assert parts[layout, 1].index == parts[layout, jobs].index


@pytest.mark.parametrize("jobs", JOBS[1:])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_slots_do_not_depend_on_jobs(parts, layout, jobs):
    """One worker and several write the same bytes from the first slot to the last."""
    assert parts[layout, 1].data == parts[layout, jobs].data


@pytest.mark.parametrize("jobs", JOBS[1:])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_attachments_do_not_depend_on_jobs(parts, layout, jobs):
    """The bytes after the packets are the same."""
    assert parts[layout, 1].attachments == parts[layout, jobs].attachments


SETTINGS = list(itertools.product((0, 3), LAYOUTS, ("64K", "1M", "4M")))
ESSENTIAL = [(0, "packed", "64K"), (3, "fixed", "1M"), (3, "packed", "4M")]


@pytest.mark.parametrize(
    ("level", "layout", "packet_size"), sweep(SETTINGS, lambda each: each in ESSENTIAL)
)
def test_other_settings_do_not_depend_on_jobs(shm, image, layout, packet_size, level):
    """Also with other packet sizes and levels one worker and three write the same."""
    way = {"layout": layout, "packet_size": packet_size, "level": level}
    snapmig.save(image, shm / "one", jobs=1, format="raw", **way)
    snapmig.save(image, shm / "three", jobs=3, format="raw", **way)

    assert slots.read(shm / "one") == slots.read(shm / "three")


def test_both_layouts_hold_the_same_packets(parts):
    """Packets have the same stored bytes, encodings and pages in each layout."""
    fixed, packed = (
        [(slot.encoding, slot.pages, slot.stored) for slot in parts[layout, 2].slots]
        for layout in LAYOUTS
    )

    assert fixed == packed


def test_both_layouts_have_the_same_records(parts):
    """Records differ only in where the packets are, and in their own checksums."""
    fixed, packed = (
        slots.without_places(parts[layout, 2].index, parts[layout, 2].slots) for layout in LAYOUTS
    )

    assert fixed == packed


def test_packed_packets_follow_each_other_in_index_order(parts):
    """The packed data is the stored bytes of all packets joined."""
    packed = parts["packed", 2]

    assert b"".join(slot.stored for slot in packed.slots) == packed.data


def test_fixed_packets_stand_where_their_number_says(parts):
    """Each slot starts at its number times the packet size after the first."""
    stored = [(n, slot.offset) for n, slot in enumerate(parts["fixed", 2].slots) if slot.stored]

    assert {offset - n * 524_288 for n, offset in stored} == {524_288}


@pytest.mark.parametrize(("window", "bits"), [("4k", 12), ("32k", 15)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_zlib_decodes_each_slot_to_the_images_pages(shm, image, layout, window, bits):
    """Decoded by zlib, all slots together are the pages of the image that are not zero."""
    snapmig.save(image, shm / "s", layout=layout, window=window, format="raw")
    found = {
        packet * 128 + page: content
        for packet, slot in enumerate(slots.read(shm / "s").slots)
        for page, content in slots.decoded(slot, bits).items()
    }
    padded = image.read_bytes() + bytes(-image.stat().st_size % 4096)
    expected = {
        page: padded[page * 4096 : (page + 1) * 4096]
        for page in range(len(padded) // 4096)
        if padded[page * 4096 : (page + 1) * 4096].strip(b"\0")
    }

    assert expected == found


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_fixed_snapshot_takes_what_is_stored(tmp_path, shm, image, place):
    """Its length is that of the RAM, and its disk use that of its packets rounded to blocks."""
    path = {"disk": tmp_path, "memory": shm}[place] / "s"
    result = snapmig.save(image, path, format="raw")
    blocks = sum(-(-len(slot.stored) // 4096) for slot in slots.read(path).slots) * 4096

    assert result.file_size >= image.stat().st_size
    assert blocks <= ram.disk_bytes(path) <= blocks + (128 << 10)


def test_a_packed_snapshot_is_as_long_as_what_is_stored(shm, image):
    """Without holes the file's length is that of the packets and their index."""
    words = {"layout": "packed", "page_digests": False}
    result = snapmig.save(image, shm / "s", format="raw", **words)

    assert 0 <= result.file_size - result.stored_size <= 64 << 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts_are_restored_alike(shm, image, layout):
    """One reader serves both layouts."""
    snapmig.save(image, shm / "s", layout=layout, format="raw")
    snapmig.restore(shm / "s", shm / "r", jobs=3)

    assert image.read_bytes() == (shm / "r").read_bytes()


@pytest.mark.parametrize("jobs", JOBS)
def test_a_restore_leaves_holes_whatever_the_jobs(shm, image, jobs):
    """The restored image takes the space of its data pages and no more."""
    snapmig.save(image, shm / "s", format="raw")
    result = snapmig.restore(shm / "s", shm / "r", jobs=jobs)

    assert result.data_pages * 4096 == ram.disk_bytes(shm / "r")


def test_more_jobs_than_packets(shm):
    """Workers that get nothing to do do no harm."""
    path = ram.write(shm / "a", b"tiny")
    snapmig.save(path, shm / "s", jobs=16, format="raw")
    snapmig.restore(shm / "s", shm / "r", jobs=16)

    assert Path(shm / "r").read_bytes() == b"tiny"
