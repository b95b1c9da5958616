"""What every benchmark does around its runs: ends, turns, and a look at others meanwhile."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from tests.bench.measure import CommandError, busy, settle

__all__ = ("in_turn", "main_with", "say", "watched")

FAILURES = (CommandError, OSError, ValueError, RuntimeError)


class Used(Protocol):
    """Figures of a run, with its processor time."""

    @property
    def cpu(self) -> float:
        """Seconds of processors, of all its processes."""


T = TypeVar("T")
Run = TypeVar("Run", bound=Used)


def say(text: str) -> None:
    """Tell on standard error what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main_with(bench: Callable[[], str | Iterable[str]], *failures: type[Exception]) -> int:
    """
    Run a benchmark and print what it returns, or why it failed; return the exit code.

    :param failures: those of its own
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of no use when a signal ends it
    try:
        found = bench()
        text = found if isinstance(found, str) else "\n".join(found)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (*FAILURES, *failures) as error:
        say(str(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    print(text)
    return 0


def in_turn(items: Sequence[T], number: int, rounds: int = sys.maxsize) -> list[T]:
    """
    Return a round's items; each round begins elsewhere, so that none always follows the same.

    :param number: of the round; a warm-up is as the first
    :param rounds: how many there are, so that all of them together begin all over the items
    """
    start = max(0, number) * max(1, len(items) // rounds) % len(items)
    return [*items[start:], *items[:start]]


def watched(work: Callable[[], Run], ram: int) -> tuple[Run, dict[str, float]]:
    """
    Run something on a settled machine; return its figures, and what others used meanwhile.

    :param ram: bytes of the guest's; what a run takes is at most twice as much
    """
    settle(2 * ram)
    before = busy()
    took = work()
    after = busy()
    others = max(0.0, after.used - before.used - took.cpu)
    stolen = after.stolen - before.stolen
    return took, {"others_cpu_s": round(others, 2), "stolen_cpu_s": round(stolen, 2)}
