"""Facts about how many requests are under way; links are numbers here."""

from random import Random

import pytest

from snapmig.stores.window import FIRST, LEAST, Window
from tests.support.far_requests import FarRequests

MOST = 32


def _window(link: FarRequests) -> Window:
    return Window(FIRST, LEAST, MOST, link.clock)


@pytest.mark.parametrize("delay_s", [0.001, 0.02, 0.08])
def test_the_link_is_used(delay_s):
    """At 1 Gbit/s nine tenths of the link are used, whatever its delay."""
    link = FarRequests(delay_s)

    assert link.run(_window(link), 2000) > 0.9


def test_an_uneven_link_is_used():
    """Where a request takes up to four times as long by chance, most of the link is used."""
    shares = []
    for seed in range(5):
        link = FarRequests(0.2, uneven=3, length=4 << 20, chance=Random(seed))
        shares.append(link.run(_window(link), 600))

    assert min(shares) > 0.75


def test_connections_are_limited():
    """Where a server gives each connection little, more of them use a fast link."""
    link = FarRequests(0.02, rate=1e9, connection_rate=90e6, length=8 << 20)

    assert link.run(_window(link), 2000) > 0.9


def test_a_short_link_needs_few():
    """Where the first window fills the link, no larger one is kept."""
    link = FarRequests(0.001)
    link.run(_window(link), 2000)

    assert sum(link.sizes) / len(link.sizes) < FIRST * 1.25


def test_it_has_a_limit():
    """However far the server is, no more than the most are under way."""
    link = FarRequests(2.0)
    link.run(_window(link), 2000)

    assert max(link.sizes) == MOST


def test_it_shrinks_when_the_link_gets_shorter():
    """What a long delay needed is given up again after it."""
    link = FarRequests(0.3)
    window = _window(link)
    link.run(window, 500)
    grown = window.size
    link.delay_s = 0.001
    link.run(window, 4000)

    assert LEAST <= window.size <= grown // 2


def test_ends_in_bunches_are_no_speed():
    """Bytes that arrive evenly give no larger window, although batches end several at a time."""
    link, chance, sizes = FarRequests(0.08), Random(1), []
    window = _window(link)
    for _ in range(500):
        link.now += chance.expovariate(1)
        for _ in range(chance.randrange(1, 13)):
            window.done(8 << 20, arrived=int(link.now * 50e6))
            sizes.append(window.size)

    assert max(sizes) == FIRST + FIRST // 2


def test_trials_in_vain_become_rare():
    """On a link that the first window fills, few requests are of other windows."""
    link = FarRequests(0.08)
    window = Window(FIRST, FIRST, MOST, link.clock)
    link.run(window, 5000)

    assert sum(size != FIRST for size in link.sizes) < 0.05 * 5000


def test_refusals_make_it_smaller():
    """A server that refuses all but two at once gets two."""
    link = FarRequests(0.02, served=2)
    window = _window(link)
    link.run(window, 40)

    assert window.size <= 2


def test_refusals_of_one_moment_count_once():
    """All of a window refused together halve it once."""
    window = Window(16, 4, MOST)
    for _ in range(16):
        window.done(1, repeated=True)

    assert window.size == 8


def test_it_recovers_from_refusals():
    """A server that refuses no more gets as many as before."""
    link = FarRequests(0.08, served=1)
    window = _window(link)
    link.run(window, 40)
    link.served = MOST

    assert link.run(window, 3000) > 0.85
