"""Facts about compressions: the same whoever writes them, and read by other programs."""

import itertools
import subprocess

import pytest

import snapmig
from tests.support import ram, slots
from tests.support.lz4_frames import framed
from tests.support.requirements import requires
from tests.support.sweep import sweep

MIB = 1 << 20
CONTENT = ram.mixed(6 * MIB + 12_345, 12)
LAYOUTS = ("fixed", "packed")
COMPRESSIONS = ("zstd", "lz4", "none")
JOBS = (1, 2, 4)
ZSTD, LZ4 = 4, 5


@pytest.fixture(scope="module")
def image(shared_shm):
    """Give an image of 6 MiB of everything."""
    return ram.write(shared_shm / "a", CONTENT)


@pytest.fixture(scope="module")
def parts(shared_shm, image):
    """Give what snapshots consist of, by compression, layout and number of jobs."""

    def save(compression, layout, jobs):
        way = {"compression": compression, "layout": layout, "jobs": jobs, "force": True}
        snapmig.save(image, shared_shm / "s", format="raw", **way)
        return slots.read(shared_shm / "s")

    return {
        (compression, layout, jobs): save(compression, layout, jobs)
        for compression in COMPRESSIONS
        for layout in LAYOUTS
        for jobs in JOBS
    }


@pytest.mark.parametrize("jobs", JOBS[1:])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_snapshot_does_not_depend_on_jobs(parts, compression, layout, jobs):
    """One worker and several write the same index and the same slots."""
    assert parts[compression, layout, 1] == parts[compression, layout, jobs]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_both_layouts_hold_the_same_packets(parts, compression):
    """Packets have the same stored bytes, encodings and pages in each layout."""
    fixed, packed = (
        [(slot.encoding, slot.pages, slot.stored) for slot in parts[compression, layout, 2].slots]
        for layout in LAYOUTS
    )

    assert fixed == packed


def _frames(parts, encoding):
    # The stored bytes of packets in an encoding, and the pages that they should be of.
    padded = CONTENT + bytes(-len(CONTENT) % 4096)
    found = [(n, slot) for n, slot in enumerate(parts.slots) if slot.encoding == encoding]
    pages = [
        padded[at : at + 4096]
        for number, slot in found
        for at in (number * 524_288 + page * 4096 for page in slot.pages)
    ]
    return [slot.stored for _, slot in found], b"".join(pages)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_program_zstd_decodes_the_slots(parts, layout):
    """All frames of a snapshot are decoded by the program to the image's pages."""
    requires("zstd")
    frames, pages = _frames(parts["zstd", layout, 2], ZSTD)
    command = ["zstd", "-q", "-d", "-c"]
    result = subprocess.run(command, input=b"".join(frames), stdout=subprocess.PIPE, check=True)

    assert (len(frames) > 5, result.stdout == pages) == (True, True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_program_lz4_decodes_the_slots(parts, layout):
    """All blocks of a snapshot are decoded by the program to the image's pages."""
    requires("lz4")
    blocks, pages = _frames(parts["lz4", layout, 2], LZ4)
    command = ["lz4", "-q", "-d", "-c"]
    result = subprocess.run(command, input=framed(*blocks), stdout=subprocess.PIPE, check=True)

    assert (len(blocks) > 5, result.stdout == pages) == (True, True)


LEVELS = {"zstd": 9, "lz4": 9, "zlib": 6}
SETTINGS = list(itertools.product(LEVELS, LAYOUTS, ("64K", "4M")))
ESSENTIAL = [("zstd", "fixed", "64K"), ("lz4", "packed", "4M")]


@pytest.mark.parametrize(
    ("compression", "layout", "packet_size"), sweep(SETTINGS, lambda each: each in ESSENTIAL)
)
def test_other_settings_do_not_depend_on_jobs(shm, image, compression, layout, packet_size):
    """Also with other packet sizes and levels one worker and three write the same."""
    way = {"compression": compression, "layout": layout, "packet_size": packet_size}
    way["level"] = LEVELS[compression]
    snapmig.save(image, shm / "one", jobs=1, format="raw", **way)
    snapmig.save(image, shm / "three", jobs=3, format="raw", **way)

    assert slots.read(shm / "one") == slots.read(shm / "three")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [*COMPRESSIONS, "zlib"])
def test_what_one_worker_wrote_three_restore(shm, image, compression, layout):
    """A restore by several workers gives the image, of every compression."""
    snapmig.save(image, shm / "s", jobs=1, compression=compression, layout=layout, format="raw")
    snapmig.restore(shm / "s", shm / "r", jobs=3)

    assert (shm / "r").read_bytes() == CONTENT


def test_none_stores_pages_as_they_are(parts):
    """Without compression every packet with a page that is not zero is raw."""
    found = {(slot.encoding, len(slot.stored) == len(slot.pages) * 4096)
             for slot in parts["none", "packed", 1].slots}  # fmt: skip

    assert found <= {(1, True), (2, True)}
