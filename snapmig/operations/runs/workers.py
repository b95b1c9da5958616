"""Worker processes of an operation: its own, or shared ones, with a limit on their writes."""

from __future__ import annotations

from functools import partial

from snapmig.errors import SnapmigError, UsageError
from snapmig.handlers.counters import Counter
from snapmig.units import parse_size
from snapmig.workers.pool import WorkerPool, WorkersMaker
from snapmig.workers.rate_limit import RateLimiter

__all__ = ("choose_workers", "make_limiter", "parse_rate")


def parse_rate(rate: str | int) -> int:
    """
    Return the bytes per second in a number or in a text such as ``200M``.

    :raises UsageError: not a size, or zero
    """
    try:
        number = parse_size(rate)
    except SnapmigError as error:
        message = f"bwlimit is {rate!r}, expected bytes per second with an optional K, M, G or T"
        raise UsageError(message) from error
    if number <= 0:
        raise UsageError(f"bwlimit is {rate!r}, expected more than nothing")
    return number


def make_limiter(bwlimit: str | int | None) -> RateLimiter | None:
    """Return a limiter of the workers' writes, None for no limit."""
    return None if bwlimit is None else RateLimiter(parse_rate(bwlimit), Counter.WRITTEN_BYTES)


def choose_workers(bwlimit: str | int | None, shared: WorkersMaker | None) -> WorkersMaker:
    """
    Return the factory of an operation's workers.

    :param shared: workers of a batch, with their own limit
    """
    if shared is not None:
        return shared
    return partial(WorkerPool, limiter=make_limiter(bwlimit))
