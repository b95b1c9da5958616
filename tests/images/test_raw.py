"""Facts about raw images as a save reads them."""

import errno
import os
from pathlib import Path

import pytest

from snapmig.errors import ImageChangedError, SnapmigError
from snapmig.geometry import PacketPlace, RamBlock
from snapmig.images.formats import open_image
from snapmig.images.formats.raw import open_blocks
from snapmig.images.readers.files import MappedFile
from snapmig.images.source import read_pages
from tests.support import ram

MIB = 1 << 20
PIECES = {MIB: ram.noise(256).tobytes(), 5 * MIB: b"x"}


@pytest.fixture
def sparse(shm):
    """Give an image of 8 MiB with 1 MiB of noise and a single byte."""
    return ram.write_sparse(shm / "a", 8 * MIB, PIECES)


@pytest.fixture
def pair(shm):
    """Give two RAM blocks with their files, the first not a whole number of pages."""
    one = ram.write(shm / "one", ram.noise(3)[:, :].tobytes()[:9000])
    two = ram.write(shm / "two", ram.text(4))
    return [(RamBlock("one", 9000), str(one)), (RamBlock("two", 16384), str(two))]


def test_a_single_file_is_the_block_ram(sparse):
    """One file is a guest's only RAM block."""
    assert open_image(str(sparse)).blocks == (RamBlock("ram", 8 * MIB),)


def test_extents_are_what_is_not_a_hole(sparse):
    """A worker sees the pieces of data as extents."""
    reader = open_image(str(sparse)).opener()()

    assert list(reader.extents(0, 8 * MIB)) == [(MIB, 2 * MIB), (5 * MIB, 5 * MIB + 4096)]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, MIB, []),
        (MIB + 4096, MIB + 8192, [(MIB + 4096, MIB + 8192)]),
        (0, 2 * MIB, [(MIB, 2 * MIB)]),
        (6 * MIB, 8 * MIB, []),
    ],
)
@pytest.mark.parametrize("before", [(0, 8 * MIB), (5 * MIB, 6 * MIB), (0, 4096)])
def test_extents_do_not_depend_on_what_was_asked_before(sparse, before, start, stop, expected):
    """Queries in any order give the same extents."""
    reader = open_image(str(sparse)).opener()()
    list(reader.extents(*before))

    assert expected == list(reader.extents(start, stop))


def test_a_packet_of_one_extent_shares_the_images_memory(sparse):
    """Pages come straight from the mapping if there is no hole among them."""
    reader = open_image(str(sparse)).opener()()
    pages = read_pages(reader, PacketPlace(0, 0, MIB, MIB))

    assert pages.base is not None
    assert not pages.flags.writeable


def test_what_is_read_once_is_a_copy(sparse):
    """Later stores of the guest do not show in it."""
    reader = open_image(str(sparse)).opener()()
    found = reader.read(MIB, 2 * MIB)
    sparse.write_bytes(bytes(8 * MIB))

    assert found.tobytes() == PIECES[MIB]


def _refuse(*_arguments):
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("preadv", [_refuse, lambda *_arguments: 4096], ids=["refused", "short"])
def test_what_can_not_be_read_is_looked_at_in_the_mapping(sparse, monkeypatch, preadv):
    """A file that refuses a read, or ends it early, is left to its mapping."""
    reader = open_image(str(sparse)).opener()()
    monkeypatch.setattr(os, "preadv", preadv)

    assert reader.read(MIB, 2 * MIB).tobytes() == PIECES[MIB]


@pytest.mark.parametrize("start", [0, 512 << 10, MIB, 3 * MIB // 2, 5 * MIB - 8192, 5 * MIB])
def test_pages_are_the_images_bytes(sparse, start):
    """A packet with holes has zeros there and the image's bytes elsewhere."""
    reader = open_image(str(sparse)).opener()()
    pages = read_pages(reader, PacketPlace(0, 0, start, MIB))

    assert sparse.read_bytes()[start : start + MIB] == (
        bytes(MIB) if pages is None else pages.tobytes()
    )


def test_a_packet_in_a_hole_has_no_pages(sparse):
    """A packet in a hole is not read at all."""
    assert read_pages(open_image(str(sparse)).opener()(), PacketPlace(0, 0, 3 * MIB, MIB)) is None


def test_reading_all_packets_adds_no_block_to_the_image(sparse):
    """Holes of shared memory stay holes."""
    before = ram.disk_bytes(sparse)
    reader = open_image(str(sparse)).opener()()
    for start in range(0, 8 * MIB, MIB):
        read_pages(reader, PacketPlace(0, 0, start, MIB))

    assert before == ram.disk_bytes(sparse)


@pytest.mark.parametrize(
    ("start", "expected"),
    [(0, MIB), (MIB + 1, MIB + 1), (2 * MIB, 5 * MIB), (5 * MIB + 4096, None)],
)
def test_next_data(sparse, start, expected):
    """The next data is at the start of the next piece, or nowhere."""
    assert expected == open_image(str(sparse)).next_data(start)


def test_blocks_lie_end_to_end(pair):
    """A RAM offset in the second block is read from the second file."""
    reader = open_blocks(pair).opener()()

    assert bytes(reader.view(9000, 9010)) == Path(pair[1][1]).read_bytes()[:10]


def test_a_short_last_page_is_filled_up(pair):
    """The rest of a block's last page is zero, and not the next block's bytes."""
    pages = read_pages(open_blocks(pair).opener()(), PacketPlace(0, 0, 0, 9000))

    assert Path(pair[0][1]).read_bytes() + bytes(3 * 4096 - 9000) == pages.tobytes()


def test_releasing_keeps_the_contents(sparse):
    """A released range can be read again."""
    reader = open_image(str(sparse)).opener()()
    before = reader.view(MIB, 2 * MIB).tobytes()
    reader.release(MIB, 2 * MIB)

    assert before == reader.view(MIB, 2 * MIB).tobytes()


class _Refusing:
    # A mapping of huge pages of 1 GiB, of which the kernel drops no part.
    def madvise(self, *_arguments):
        raise OSError(errno.EINVAL, "Invalid argument")


def test_a_range_that_can_not_be_released_is_no_failure(sparse, monkeypatch):
    """Dropping pages is a courtesy; if the kernel refuses it, the save continues."""
    file = MappedFile(str(sparse))
    monkeypatch.setattr(file, "raw", _Refusing())

    assert file.release(MIB, 2 * MIB) is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.touch(), "image is empty, expected a guest's RAM"),
        (lambda path: os.mkfifo(path), "image is not a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "image is not a regular file"),
    ],
    ids=["empty", "pipe", "device"],
)
def test_images_that_are_none(tmp_path, make, words):
    """A file that can't be a guest's RAM is refused, with its path."""
    make(tmp_path / "a")

    with pytest.raises(SnapmigError, match=words) as caught:
        open_image(str(tmp_path / "a"))

    assert caught.value.path == str(tmp_path / "a")


def test_a_file_of_another_size_than_its_block(pair):
    """A RAM block must have its file's size."""
    with pytest.raises(SnapmigError, match="file has 16384 bytes, RAM block 'x' 16383"):
        open_blocks([(RamBlock("x", 16383), pair[1][1])])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: os.truncate(path, 4096), "image had 8388608 bytes at the start, now 4096"),
        (lambda path: os.truncate(path, 9 * MIB), "now 9437184"),
        (lambda path: os.utime(path, ns=(1, 1)), "written to while it was read"),
    ],
    ids=["shrunk", "grown", "written"],
)
def test_a_change_of_the_image_is_seen(sparse, change, words):
    """Another size or modification time is an error with the image's path."""
    image = open_image(str(sparse))
    change(sparse)

    with pytest.raises(ImageChangedError, match=words) as caught:
        image.check_unchanged()

    assert caught.value.path == str(sparse)


def test_an_image_that_did_not_change_is_fine(sparse):
    """Reading is no change."""
    image = open_image(str(sparse))
    sparse.read_bytes()

    assert image.check_unchanged() is None
