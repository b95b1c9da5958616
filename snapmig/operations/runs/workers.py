"""Where an operation's worker processes come from: its own, with a limit on what they write."""

from __future__ import annotations

from functools import partial

from snapmig.handlers.counters import Counter
from snapmig.operations.options.parse import parse_rate
from snapmig.workers.pool import WorkerPool, WorkersMaker
from snapmig.workers.rate_limit import RateLimiter

__all__ = ("choose_workers", "make_pace")


def make_pace(bwlimit: str | int | None) -> RateLimiter | None:
    """Return a limit on what workers write, None for no limit."""
    return None if bwlimit is None else RateLimiter(parse_rate(bwlimit), Counter.WRITTEN_BYTES)


def choose_workers(bwlimit: str | int | None, shared: WorkersMaker | None) -> WorkersMaker:
    """
    Return what gives an operation its workers.

    :param shared: those of a run of many, which has its own limit
    """
    if shared is not None:
        return shared
    return partial(WorkerPool, pace=make_pace(bwlimit))
