"""Facts about memory files overlaid with later files of changes."""

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapmig.errors import ImageChangedError, SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.readers.overlay import MAX_LAYERS, OverlayImage, OverlayReader
from snapmig.images.source import read_pages

PAGES = 64
SIZE = PAGES * PAGE_SIZE

HOLE, ZERO = -1, 0
"""What a test's page is besides the byte it is full of."""


def write_layer(path: Path, pages: dict[int, int], size: int = SIZE) -> Path:
    """Write a file with some pages filled with a byte, zeros included, and holes elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for page, value in pages.items():
            if value != HOLE:
                file.seek(page * PAGE_SIZE)
                file.write(bytes([value]) * PAGE_SIZE)
    return path


def open_overlay(*paths: Path) -> OverlayImage:
    """Open layers of files as a single RAM block."""
    files = [ImageFile(str(path)) for path in paths]
    return OverlayImage("overlay", [RamBlock("ram", files[0].size)], files)


def values(reader: OverlayReader, size: int = SIZE, step: int = 8 * PAGE_SIZE) -> list[int]:
    """Return the fill byte of each page, read in packets as a save does."""
    geometry = Geometry((RamBlock("ram", size),), step)
    found: list[int] = []
    for number in range(geometry.packet_count):
        place = geometry.place(number)
        pages = read_pages(reader, place)
        if pages is None:
            pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
        assert (pages == pages[:, :1]).all()
        found += pages[:, 0].tolist()
    return found


@pytest.fixture
def three(tmp_path):
    """Give a base and two later files, with every combination of pages."""
    return (
        write_layer(tmp_path / "base", {0: 1, 1: 1, 2: 1, 10: 1, 63: 1}),
        write_layer(tmp_path / "one", {1: 2, 2: ZERO, 20: 2, 21: 2}),
        write_layer(tmp_path / "two", {2: 3, 20: ZERO, 63: ZERO}),
    )


def test_the_last_file_that_has_a_page_says_what_it_is(three):
    """Holes show the file before; written pages hide it."""
    expected = [0] * PAGES
    expected[0], expected[1], expected[2], expected[10], expected[21] = 1, 2, 3, 1, 2

    assert values(OverlayReader([str(path) for path in three])) == expected


def test_written_zeros_hide_what_was_before(tmp_path):
    """A page that became zero is zero, though the base has data."""
    base = write_layer(tmp_path / "base", dict.fromkeys(range(PAGES), 7))
    diff = write_layer(tmp_path / "diff", {5: ZERO})

    assert values(OverlayReader([str(base), str(diff)])) == [7] * 5 + [0] + [7] * 58


def test_the_order_of_files_counts(three):
    """The same files in another order are another guest."""
    base, one, two = map(str, three)

    assert values(OverlayReader([base, one, two])) != values(OverlayReader([base, two, one]))


def test_one_file_alone_is_itself(three):
    """Without later files the base is all there is."""
    expected = [1, 1, 1, *[0] * 7, 1, *[0] * 52, 1]

    assert values(OverlayReader([str(three[0])])) == expected


def test_a_packet_in_one_file_is_not_copied(tmp_path):
    """A view is the mapped file itself."""
    base = write_layer(tmp_path / "base", dict.fromkeys(range(PAGES), 7))
    reader = OverlayReader([str(base), str(write_layer(tmp_path / "diff", {}))])

    assert list(reader.extents(0, SIZE)) == [(0, SIZE)]
    assert not reader.view(0, SIZE).flags.owndata


def test_a_large_range_is_copied(tmp_path):
    """Later stores do not show in the copy."""
    base = write_layer(tmp_path / "base", dict.fromkeys(range(PAGES), 7))
    found = OverlayReader([str(base)]).read(0, SIZE)
    base.write_bytes(bytes(SIZE))

    assert (found == 7).all()


def test_read_and_view_are_the_same(three):
    """In whichever file the range lies."""
    reader = OverlayReader([str(path) for path in three])
    for start, stop in reader.extents(0, SIZE):
        assert reader.read(start, stop).tobytes() == reader.view(start, stop).tobytes()


def test_extents_do_not_overlap_and_go_up(three):
    """Each byte is in one extent at most."""
    extents = list(OverlayReader([str(path) for path in three]).extents(0, SIZE))

    assert all(start < stop for start, stop in extents)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(extents))


def test_next_data_is_the_nearest_of_all_files(three):
    """The parent finds data whichever file has it."""
    image = open_overlay(*three)

    assert image.next_data(3 * PAGE_SIZE) == 10 * PAGE_SIZE
    assert image.next_data(11 * PAGE_SIZE) == 20 * PAGE_SIZE
    assert image.next_data(64 * PAGE_SIZE) is None
    image.close()


def test_no_file_has_data(tmp_path):
    """A guest of zeros has no data at all."""
    image = open_overlay(write_layer(tmp_path / "a", {}), write_layer(tmp_path / "b", {}))

    assert image.next_data(0) is None
    image.close()


def test_release_keeps_the_contents(three):
    """A released range can be read again."""
    reader = OverlayReader([str(path) for path in three])
    before = values(reader)
    reader.release(0, SIZE)

    assert values(reader) == before


def test_a_reader_opens_elsewhere(three):
    """A reader's opener can be sent to another process."""
    image = open_overlay(*three)
    opener = pickle.loads(pickle.dumps(image.opener()))

    assert values(opener())[:3] == [1, 2, 3]
    image.close()


@pytest.mark.parametrize("size", [SIZE - PAGE_SIZE, SIZE + PAGE_SIZE, 1])
def test_files_of_other_sizes_are_refused(three, tmp_path, size):
    """A diff has the size of its base."""
    other = write_layer(tmp_path / "other", {}, size)

    with pytest.raises(SnapmigError, match=rf"other: file has {size} bytes, .*base.* {SIZE}$"):
        open_overlay(three[0], other)


def test_too_many_files_are_refused(three):
    """A chain has an end."""
    with pytest.raises(SnapmigError, match=f"{MAX_LAYERS + 1} layers of memory"):
        open_overlay(*[three[0]] * (MAX_LAYERS + 1))


def test_the_longest_chain_is_read(tmp_path):
    """The largest number of files works."""
    base = write_layer(tmp_path / "base", {0: 1, 1: 1})
    diff = write_layer(tmp_path / "diff", {1: 2})
    image = open_overlay(base, *[diff] * (MAX_LAYERS - 1))

    assert values(image.opener()())[:3] == [1, 2, 0]
    image.close()


@pytest.mark.parametrize("number", range(3))
def test_a_change_of_any_file_is_noticed(three, number):
    """All files are watched."""
    image = open_overlay(*three)
    with three[number].open("r+b") as file:
        file.truncate(SIZE * 2)

    with pytest.raises(ImageChangedError, match=three[number].name):
        image.check_unchanged()
    image.close()


layer = st.lists(st.sampled_from([HOLE, ZERO, 1, 2, 255]), min_size=16, max_size=16)


@settings(max_examples=60)
@given(layers=st.lists(layer, min_size=1, max_size=5), step=st.sampled_from([1, 3, 16]))
def test_any_layers_are_what_numpy_says(tmp_path_factory, layers, step):
    """The result is each page's last value that is not a hole, else zero."""
    directory = tmp_path_factory.mktemp("layers")
    size = 16 * PAGE_SIZE
    paths = [
        write_layer(directory / str(number), dict(enumerate(pages)), size)
        for number, pages in enumerate(layers)
    ]
    expected = np.zeros(16, int)
    for pages in layers:
        expected = np.where(np.array(pages) == HOLE, expected, pages)

    found = values(OverlayReader([str(path) for path in paths]), size, step * PAGE_SIZE)

    assert found == expected.tolist()
