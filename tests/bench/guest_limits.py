"""Lower limits of a save over multifd: the bare compression, and the bare migration."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.codecs import ISAL
from tests.bench.guest_runs import LONGEST_DOWNTIME_MS, Took, set_capabilities, set_none
from tests.bench.limits import Packets, Streams
from tests.bench.machines import Running
from tests.bench.thrown_away import throw_away
from tests.support.guests.migration import MULTIFD

BARE_CODEC = "bare codec"
THROWN_AWAY = "multifd thrown away"


@dataclass(frozen=True)
class GuestLimit:
    """
    Part of the work of a save, by itself.

    :param prepare: what is set in the monitor before the clock starts
    :param run: gets the paused guest and the number of jobs
    """

    name: str
    prepare: Callable[[Running, int], None]
    run: Callable[[Running, int], Took]


def _compress(running: Running, jobs: int) -> Took:
    took = Streams(Packets(running.memory, jobs), ISAL, jobs).compress(jobs, running.folder)
    return Took(took.slowest, took.cpu)


def _set_paused(running: Running, jobs: int) -> None:
    set_capabilities(running, jobs, MULTIFD, downtime_ms=LONGEST_DOWNTIME_MS)


GUEST_LIMITS = (
    GuestLimit(BARE_CODEC, set_none, _compress),
    GuestLimit(THROWN_AWAY, _set_paused, throw_away),
)
