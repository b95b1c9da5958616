"""Facts about the mix of codecs for a destination."""

from itertools import pairwise

import numpy as np
import pytest

from snapmig.encodings.codec_mix import SLACK, Cost, best_mix

WORKS = (1.0, 2.0, 4.0, 12.0)
SIZES = (1.0, 0.4, 0.3, 0.25)


def costs(pace):
    """Return the costs of codecs beside a destination that takes so long for a byte."""
    return [Cost(work, size * pace, size) for work, size in zip(WORKS, SIZES, strict=True)]


def brute_force(given):
    """Return the least time of all mixes of two, and the least size close to that time."""
    shares = np.linspace(0, 1, 1001)
    times, sizes = [], []
    for one in given:
        for other in given:
            work, sent, size = (a + (b - a) * shares for a, b in zip(one, other, strict=True))
            times.append(np.maximum(work, sent))
            sizes.append(size)
    found, size = np.concatenate(times), np.concatenate(sizes)
    return found.min(), size[found <= found.min() * SLACK].min()


@pytest.mark.parametrize("pace", [0.0, 0.5, 2, 5, 8, 13, 30, 100])
def test_it_is_the_smallest_of_the_soon_ones(pace):
    """A search of all mixes of two finds no smaller one that is as soon."""
    given = costs(pace)
    first, second, share, _ = best_mix(given)
    work, sent, size = (
        a + (b - a) * share for a, b in zip(given[first], given[second], strict=True)
    )
    soonest, smallest = brute_force(given)

    assert max(work, sent) <= soonest * SLACK * 1.001
    assert size <= smallest * 1.001


def test_a_slower_destination_gets_smaller_packets():
    """The slower the destination, the smaller what is stored."""
    sizes = []
    for pace in (0, 1, 2, 4, 8, 16, 64, 256):
        mix = best_mix(costs(pace))
        first, second = SIZES[mix.first], SIZES[mix.second]
        sizes.append(first + (second - first) * mix.share)

    assert all(later <= sooner for sooner, later in pairwise(sizes))
    assert sizes[0] > sizes[-1]


def test_a_codec_that_gains_nothing_is_left_out():
    """One that takes longer and stores more is used at no pace."""
    for pace in (0, 1, 5, 50):
        useless = Cost(5.0, 0.9 * pace, 0.9)
        mix = best_mix([*costs(pace), useless])

        assert 4 not in {mix.first if mix.share < 1 else mix.second, mix.second if mix.share else 0}
