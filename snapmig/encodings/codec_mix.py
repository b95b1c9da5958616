"""The mix of codecs to save a guest soonest, from the costs of each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

__all__ = ("Cost", "Mix", "best_mix")

SLACK = 1.03
"""A smaller snapshot may take so much longer than the soonest one."""


class Cost(NamedTuple):
    """
    Cost of a codec, for a byte of pages.

    :param work: nanoseconds of all workers together, side by side
    :param sent: nanoseconds of the destination, which works beside them
    :param size: stored bytes
    """

    work: float
    sent: float
    size: float


class Mix(NamedTuple):
    """
    Two codecs by their places, and the share of the second.

    :param ns: nanoseconds for a byte of pages
    """

    first: int
    second: int
    share: float
    ns: float = 0.0


def best_mix(costs: Sequence[Cost], slack: float = SLACK) -> Mix:
    """
    Return the smallest mix among those hardly slower than the soonest.

    Workers and the destination work side by side, so a save takes as long as the slower of them.
    Two codecs are enough: more can't make both of them busy all the time any better.

    :param slack: times as long as the soonest that it may take
    """
    pairs = list(product(range(len(costs)), repeat=2))
    limit = slack * min(_soonest(costs[one], costs[other]) for one, other in pairs)
    fitting = [
        Mix(one, other, share, limit)
        for one, other in pairs
        if (share := _largest_share(costs[one], costs[other], limit)) is not None
    ]
    return min(fitting, key=lambda mix: _between(*_sizes(costs, mix), mix.share))


def _sizes(costs: Sequence[Cost], mix: Mix) -> tuple[float, float]:
    return costs[mix.first].size, costs[mix.second].size


def _between(first: float, second: float, share: float) -> float:
    return first + (second - first) * share


def _ns(one: Cost, other: Cost, share: float) -> float:
    return max(_between(one.work, other.work, share), _between(one.sent, other.sent, share))


def _soonest(one: Cost, other: Cost) -> float:
    # At one end, or where workers and destination take the same time.
    shares = [0.0, 1.0]
    slope = (other.work - one.work) - (other.sent - one.sent)
    if slope:
        shares.append(min(1.0, max(0.0, (one.sent - one.work) / slope)))
    return min(_ns(one, other, share) for share in shares)


def _largest_share(one: Cost, other: Cost, limit: float) -> float | None:
    # The largest share of the other codec within a limit; None if there is none.
    shares = [1.0]
    for first, second in ((one.work, other.work), (one.sent, other.sent)):
        if second > first:
            shares.append((limit - first) / (second - first))
    share = max(0.0, min(shares))
    return share if _ns(one, other, share) <= limit * (1 + 1e-9) else None
