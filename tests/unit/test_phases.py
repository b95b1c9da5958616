"""Facts about progress around the packets of a run, and of several runs together."""

import gzip
from functools import partial
from itertools import groupby

import pytest

import snapmig
from snapmig.container.reader import SnapshotFile
from snapmig.handlers.load import VerifyHandler
from snapmig.handlers.load_tasks import DamageTasks
from snapmig.operations.runs.read import Reading, read_options
from tests.support import ram

SIZE = 4 << 20


@pytest.fixture
def image(shm):
    """Give an image of 4 MiB."""
    return ram.write(shm / "guest.ram", ram.text(SIZE // ram.PAGE).tobytes())


@pytest.fixture
def snap(shm, image):
    """Give its snapshot."""
    snapmig.save(image, shm / "guest.snap", jobs=1)
    return shm / "guest.snap"


def _phases(seen):
    return [phase for phase, _ in groupby(each.phase for each in seen)]


def test_a_save_ends_with_the_disk(shm, image):
    """The packets come first, then a sample of them again, then the sync."""
    seen = []
    snapmig.save(image, shm / "new.snap", jobs=1, progress=seen.append)

    assert _phases(seen) == ["", "reading a sample again", "waiting for the disk"]
    assert {(each.total_bytes, each.done_bytes) for each in seen if each.phase} == {(SIZE, SIZE)}


def test_a_packed_image_is_unpacked_first(shm, image):
    """With bytes of the packed file, all of them at the end."""
    packed = shm / "guest.ram.gz"
    packed.write_bytes(gzip.compress(image.read_bytes()))
    seen = []
    snapmig.save(packed, shm / "new.snap", jobs=1, progress=seen.append)
    unpacking = [each for each in seen if each.phase == "unpacking"]

    assert _phases(seen)[:2] == ["unpacking", ""]
    assert (unpacking[0].done_bytes, unpacking[-1].done_bytes) == (0, packed.stat().st_size)
    assert {each.total_bytes for each in unpacking} == {packed.stat().st_size}


def test_an_image_that_is_measured_says_so(shm, snap):
    """Where an image compresses pages, its size is found in a pass before."""
    seen = []
    address = {"ram": 0}
    snapmig.restore(
        snap, shm / "dump", format="avml", address=address, jobs=1, progress=seen.append
    )
    assert _phases(seen) == ["measuring", "", "waiting for the disk"]


def test_a_search_for_the_kernels_note_says_so(shm, snap):
    """It decodes all of RAM before the core is made."""
    seen = []
    words = {"format": "elf", "address": {"ram": 0}, "arch": "x86_64"}
    snapmig.restore(snap, shm / "core", jobs=1, progress=seen.append, **words)
    phases = _phases(seen)

    assert phases == ["looking for the kernel's note", "", "waiting for the disk"]


def test_several_runs_count_together(snap):
    """Where parts of a snapshot are read one after another, bytes of all of them are counted."""
    seen = []
    with SnapshotFile(str(snap)) as file, Reading(file, _options(seen)) as reading:
        reading.whole = 2 * SIZE
        for _ in range(2):
            tasks = DamageTasks(file, range(file.geometry.packet_count))
            reading.run(tasks, partial(VerifyHandler, reading.plans), SIZE)
        reading.tell("resting")
    done = [each.done_bytes for each in seen]

    assert {each.total_bytes for each in seen} == {2 * SIZE}
    assert (done, done[-1], SIZE in done) == (sorted(done), 2 * SIZE, True)


def _options(seen):
    return read_options(1, "auto", None, seen.append)


def test_a_commit_counts_the_ram_of_its_records(shm, image):
    """It reads the index, and waits for the disk."""
    for share in ("1/2", "2/2"):
        snapmig.save(image, shm / "s", share=share, jobs=1)
    seen = []
    snapmig.commit(shm / "s", progress=seen.append)

    assert [(each.phase, each.done_bytes) for each in seen] == [
        ("", SIZE),
        ("waiting for the disk", SIZE),
    ]
