"""Where an operation's worker processes come from: its own, with a limit on what they write."""

from __future__ import annotations

from functools import partial

from snapmig.errors import SnapmigError, UsageError
from snapmig.handlers.counters import Counter
from snapmig.units import parse_size
from snapmig.workers.pool import WorkerPool, WorkersMaker
from snapmig.workers.rate_limit import RateLimiter

__all__ = ("choose_workers", "make_pace", "parse_rate")


def parse_rate(rate: str | int) -> int:
    """
    Return bytes per second, of a number or of words like ``200M``.

    :raises UsageError: not a size, or nothing
    """
    try:
        number = parse_size(rate)
    except SnapmigError as error:
        words = f"bwlimit is {rate!r}, expected bytes per second with an optional K, M, G or T"
        raise UsageError(words) from error
    if number <= 0:
        raise UsageError(f"bwlimit is {rate!r}, expected more than nothing")
    return number


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
