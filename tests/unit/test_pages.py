"""Facts about the pages of a packet as numpy sees them."""

import numpy as np
import pytest

from snapmig.pages import as_pages, data_mask, runs
from tests.support import ram


def test_one_byte_at_any_position_makes_a_page_data():
    """A page with a single byte that is not zero is data, wherever that byte is."""
    pages = np.eye(4096, dtype=np.uint8)

    assert data_mask(pages).tolist() == [True] * 4096


def test_one_byte_of_any_value_makes_a_page_data():
    """Each of the 255 values that are not zero makes a page data."""
    pages = ram.zeros(255)
    pages[:, 4095] = np.arange(1, 256)

    assert data_mask(pages).tolist() == [True] * 255


@pytest.mark.parametrize("count", [1, 2, 16, 128, 1024])
def test_zero_pages_are_not_data(count):
    """A page of zeros is no data, in packets of every size."""
    assert [False] * count == data_mask(ram.zeros(count)).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_data_mask_is_what_a_search_for_bytes_finds(seed):
    """The mask is the one that looking at each page's bytes gives."""
    content = ram.mixed(300 * 4096, seed)

    mask = data_mask(np.frombuffer(content, np.uint8).reshape(-1, 4096))

    assert mask.tolist() == [
        content[at : at + 4096].strip(b"\0") != b"" for at in range(0, len(content), 4096)
    ]


@pytest.mark.parametrize("size", [1, 4095, 4097, 65535])
def test_as_pages_fills_up_a_short_page_with_zeros(size):
    """Bytes that are no whole number of pages are followed by zeros."""
    content = np.full(size, 9, np.uint8)

    pages = as_pages(content)

    assert content.tobytes() == pages.tobytes().rstrip(b"\0")


@pytest.mark.parametrize("size", [4096, 65536])
def test_as_pages_copies_nothing_when_it_need_not(size):
    """Whole pages share the memory of the bytes that they were."""
    content = np.zeros(size, np.uint8)

    assert np.shares_memory(content, as_pages(content))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("", []),
        ("0000", []),
        ("1111", [(0, 4)]),
        ("1000", [(0, 1)]),
        ("0001", [(3, 1)]),
        ("0110", [(1, 2)]),
        ("1011", [(0, 1), (2, 2)]),
        ("10101", [(0, 1), (2, 1), (4, 1)]),
    ],
)
def test_runs(mask, expected):
    """Runs are the first place and the length of what is true side by side."""
    assert expected == list(runs(np.array([letter == "1" for letter in mask], bool)))
