"""Ranges joined and objects cut, without a server."""

from __future__ import annotations

import pytest

from snapmig.stores.object import GAP, joined
from snapmig.stores.upload import MAX_PARTS, MIN_PART, part_size


@pytest.mark.parametrize("size", [1, 80_000 << 20, 1 << 40, 16 << 40])
def test_no_guest_needs_too_many_parts(size):
    """Parts are large enough that there are at most 10,000, and at most 5 GiB each."""
    found = part_size(size)

    assert MIN_PART <= found <= 5 << 30
    assert -(-size // found) <= MAX_PARTS
    assert found % (1 << 20) == 0


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([(10, 5)], [(10, 5, 5)]),
        ([(10, 5), (15, 5)], [(10, 10, 10)]),
        ([(15, 5), (10, 5)], [(10, 10, 10)]),
        ([(0, 5), (5 + GAP, 5)], [(0, 10 + GAP, 10)]),
        ([(0, 5), (6 + GAP, 5)], [(0, 5, 5), (6 + GAP, 5, 5)]),
        ([(0, 0), (0, 7)], [(0, 7, 7)]),
    ],
)
def test_ranges_near_each_other_are_one(ranges, expected):
    """Ranges with a small gap between them take one request."""
    assert list(joined(ranges)) == expected
