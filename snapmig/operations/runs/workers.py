"""Worker processes of an operation: its own, or shared ones, with a limit on their writes."""

from __future__ import annotations

from functools import partial
from typing import Any

from snapmig.handlers.counters import Counter
from snapmig.operations.options.parse import parse_rate
from snapmig.workers.pool import WorkerPool, WorkersMaker
from snapmig.workers.rate_limit import RateLimiter

__all__ = ("WorkerGroup", "choose_workers", "make_limiter")


def make_limiter(bwlimit: str | int | None) -> RateLimiter | None:
    """Return a limiter of the workers' writes, None for no limit."""
    return None if bwlimit is None else RateLimiter(parse_rate(bwlimit), Counter.WRITTEN_BYTES)


class WorkerGroup:
    """
    Worker processes for several saves and restores, each in its own thread; a context manager.

    Enter it before starting threads: workers are forked.

    :param size: number of worker processes
    :param at_once: saves and restores under way at a time
    :param bwlimit: bytes per second to write at most, all together; a number or a text such as
        ``200M``
    :raises UsageError: an invalid ``bwlimit``
    """

    def __init__(self, size: int, at_once: int, *, bwlimit: str | int | None = None) -> None:
        # Imported only here: a single save needs neither threads nor their dispatcher.
        from snapmig.workers.shared_pool import SharedPool  # noqa: PLC0415

        self._pool = SharedPool(size, at_once, make_limiter(bwlimit))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size}>"

    def __enter__(self) -> WorkerGroup:
        self._pool.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._pool.__exit__(*exc)

    @property
    def size(self) -> int:
        """Number of worker processes."""
        return self._pool.size


def choose_workers(bwlimit: str | int | None, shared: WorkerGroup | None) -> WorkersMaker:
    """
    Return the factory of an operation's workers.

    :param shared: a group with its own limit
    """
    if shared is not None:
        return shared._pool.workers
    return partial(WorkerPool, limiter=make_limiter(bwlimit))
