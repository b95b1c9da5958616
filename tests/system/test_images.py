"""Facts about the places that a guest's RAM is saved from and restored to."""

import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snapmig
from tests.support import ram
from tests.support.filesystems import HUGE, memfd

MIB = 1 << 20
SIZE = 8 * MIB
CONTENT = ram.mixed(SIZE, 21)
OLD = ram.noise(SIZE // 4096, 22).tobytes()
root = pytest.mark.root
KINDS = [
    "disk",
    "memory",
    "memfd",
    "deleted",
    pytest.param("ramfs", marks=root),
    pytest.param("hugetlbfs", marks=root),
]
NAMED = ["disk", "memory", pytest.param("ramfs", marks=root)]


def _bytes(path):
    # Through a mapping, for hugetlbfs.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        return view[:]


@pytest.fixture(scope="module")
def snapshot(shared_shm):
    """Give a snapshot of the contents."""
    ram.write(shared_shm / "a", CONTENT)
    snapmig.save(shared_shm / "a", shared_shm / "s")
    return shared_shm / "s"


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_saved_from_anywhere(place_image, shm, kind):
    """An image of each kind is saved with all its bytes."""
    snapmig.save(place_image(kind, CONTENT), shm / "s", jobs=2)
    with snapmig.open(shm / "s") as saved:
        assert saved.read(0, SIZE) == CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_filled_in_place_anywhere(place_image, snapshot, kind):
    """Noise in an image of each kind gives way to the snapshot, zero pages included."""
    path = place_image(kind, OLD)
    snapmig.restore(snapshot, path, in_place=True, jobs=2)

    assert _bytes(path) == CONTENT


@pytest.mark.parametrize("kind", NAMED)
def test_an_image_is_made_anywhere(place_image, snapshot, kind):
    """A new image in each filesystem has all bytes of the snapshot."""
    path = place_image(kind, b"").with_name("new")
    snapmig.restore(snapshot, path, jobs=2)

    assert path.read_bytes() == CONTENT


@root
def test_an_image_is_made_on_hugetlbfs(hugetlbfs, snapshot):
    """A new image of huge pages has all bytes of the snapshot."""
    snapmig.restore(snapshot, hugetlbfs / "new", jobs=2)

    assert _bytes(hugetlbfs / "new") == CONTENT


@root
def test_an_image_replaces_one_on_hugetlbfs(place_image, snapshot):
    """With force a new image of huge pages takes the old one's place."""
    path = place_image("hugetlbfs", OLD)
    snapmig.restore(snapshot, path, force=True)

    assert _bytes(path) == CONTENT


@root
def test_too_few_huge_pages_are_named(hugetlbfs, shm):
    """Where the pool has too few huge pages, the error names the image and the space."""
    ram.write(shm / "a", ram.noise(64 * MIB // 4096))
    snapmig.save(shm / "a", shm / "s")

    with pytest.raises(snapmig.NoSpaceError, match=r"64\.0 MiB") as caught:
        snapmig.restore(shm / "s", hugetlbfs / "new")

    assert (caught.value.path, list(hugetlbfs.iterdir())) == (str(hugetlbfs / "new"), [])


@root
def test_too_few_huge_pages_in_place_are_named(hugetlbfs, shm):
    """Filling an image in place names it too when the pool runs out."""
    ram.write(shm / "a", ram.noise(64 * MIB // 4096))
    snapmig.save(shm / "a", shm / "s")
    with (hugetlbfs / "image").open("wb") as file:
        file.truncate(64 * MIB)

    with pytest.raises(snapmig.NoSpaceError) as caught:
        snapmig.restore(shm / "s", hugetlbfs / "image", in_place=True)

    assert caught.value.path == str(hugetlbfs / "image")


@root
def test_huge_pages_are_noted_in_the_snapshot(place_image, shm):
    """The RAM block of an image of huge pages says how large they are."""
    snapmig.save(place_image("hugetlbfs", CONTENT), shm / "s")

    (block,) = snapmig.info(shm / "s").blocks
    assert (block.name, block.size, block.page_size) == ("ram", SIZE, HUGE)


@pytest.mark.parametrize("kind", KINDS)
def test_saving_leaves_the_image_as_it_was(place_image, shm, kind):
    """An image has the same bytes after a save."""
    path = place_image(kind, CONTENT)
    snapmig.save(path, shm / "s")

    assert _bytes(path) == CONTENT


@pytest.mark.parametrize("kind", ["disk", "memory", "memfd", "deleted"])
def test_zero_pages_in_place_become_holes(place_image, shm, kind):
    """Where holes can be punched, restoring zeros in place gives the space back."""
    ram.write_sparse(shm / "a", SIZE, {MIB: b"x" * 4096})
    snapmig.save(shm / "a", shm / "s")
    path = place_image(kind, OLD)
    snapmig.restore(shm / "s", path, in_place=True)

    assert ram.disk_bytes(path) == 4096


MAPS = """
import hashlib, mmap, sys
with open(sys.argv[1], "r+b") as file:
    view = mmap.mmap(file.fileno(), 0)
print(hashlib.sha256(view).hexdigest(), flush=True)
sys.stdin.readline()
print(hashlib.sha256(view).hexdigest(), flush=True)
"""


def test_who_has_mapped_an_image_sees_it_restored(snapshot):
    """Another process sees the snapshot's bytes in memory that it had mapped before."""
    with (
        memfd(OLD) as path,
        subprocess.Popen(
            [sys.executable, "-c", MAPS, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        before = process.stdout.readline().strip()
        snapmig.restore(snapshot, path, in_place=True)
        after, _ = process.communicate("\n", timeout=30)

    assert (before, after.strip()) == (
        hashlib.sha256(OLD).hexdigest(),
        hashlib.sha256(CONTENT).hexdigest(),
    )


def test_zero_pages_in_place_are_zero_for_who_has_mapped_them(shm):
    """A mapping of what was noise reads zeros after zeros were restored."""
    ram.write(shm / "a", bytes(SIZE))
    snapmig.save(shm / "a", shm / "s")
    path = ram.write(shm / "image", OLD)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        assert view[:4096] == OLD[:4096]
        snapmig.restore(shm / "s", path, in_place=True)

        assert view[:] == bytes(SIZE)


@pytest.fixture(scope="module")
def huge_sparse(shared_shm):
    """Give an image of 4 GiB in shared memory with 3 MiB of data here and there."""
    pieces = {number * 700 * MIB + 12_288: ram.mixed(MIB // 2, number) for number in range(6)}
    return ram.write_sparse(shared_shm / "sparse", 4 << 30, pieces)


@pytest.mark.parametrize("layout", ["fixed", "packed"])
def test_saving_a_sparse_guest_adds_no_block_to_it(huge_sparse, shm, layout):
    """Holes of shared memory are not allocated by being saved."""
    before = ram.disk_bytes(huge_sparse)
    snapmig.save(huge_sparse, shm / "s", layout=layout)

    assert before == ram.disk_bytes(huge_sparse)


def test_a_sparse_guest_is_restored_as_holes(huge_sparse, shm):
    """A restored guest takes the space of its data pages, and has the same bytes."""
    snapmig.save(huge_sparse, shm / "s")
    result = snapmig.restore(shm / "s", shm / "r")
    taken = ram.disk_bytes(shm / "r")
    with (shm / "r").open("rb") as file, huge_sparse.open("rb") as original:
        found = [
            os.pread(file.fileno(), MIB, number * 700 * MIB)
            == os.pread(original.fileno(), MIB, number * 700 * MIB)
            for number in range(6)
        ]

    assert (taken, result.ram_size, found) == (result.data_pages * 4096, 4 << 30, [True] * 6)


@pytest.mark.parametrize("change", [-4096, -1, 1, 4096])
def test_an_image_of_another_size_is_not_filled(snapshot, shm, change):
    """In place the sizes must agree; nothing is written when they don't."""
    old = (OLD + bytes(4096))[: SIZE + change]
    path = ram.write(shm / "image", old)
    with pytest.raises(snapmig.SnapmigError, match=f"image has {SIZE + change} bytes, the"):
        snapmig.restore(snapshot, path, in_place=True)

    assert path.read_bytes() == old


def test_a_block_is_filled_in_place(shm):
    """One RAM block alone fills an image of its size."""
    files = [ram.write(shm / "0", CONTENT[:70_000]), ram.write(shm / "1", CONTENT[70_000:])]
    blocks = [(snapmig.RamBlock(file.name, file.stat().st_size), file) for file in files]
    snapmig.save(blocks, shm / "s")
    ram.write(shm / "image", OLD[70_000:])
    snapmig.restore(shm / "s", shm / "image", in_place=True, block="1")

    assert (shm / "image").read_bytes() == CONTENT[70_000:]


def test_in_place_keeps_the_file(snapshot, shm):
    """In place the same file is filled, with its owner and its links."""
    path = ram.write(shm / "image", OLD)
    before = path.stat().st_ino
    snapmig.restore(snapshot, path, in_place=True)

    assert before == path.stat().st_ino


def test_a_link_to_an_image_is_followed(snapshot, shm):
    """An image and a snapshot may be named through symbolic links."""
    (shm / "link").symlink_to(ram.write(shm / "a", CONTENT))
    (shm / "s").symlink_to(snapshot)
    snapmig.save(shm / "link", shm / "t")
    snapmig.restore(shm / "s", shm / "r")

    assert Path(shm / "r").read_bytes() == CONTENT
