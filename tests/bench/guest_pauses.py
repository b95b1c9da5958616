"""Ways to save a running guest, and how long it stands still in each."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.contestants import SNAPMIG
from tests.bench.guest_runs import Took, scan, set_capabilities, set_none, snapmig_save
from tests.bench.machines import Running
from tests.bench.thrown_away import downtime, stood_still, throw_away
from tests.support.guests.migration import MULTIFD, MigrationError

LIVE = "snapmig --live"
LIVE_MULTIFD = "snapmig --live --via multifd"
OWN_LIVE = "QEMU live, thrown away"
BACKGROUND = "snapmig --live=background"
OWN_BACKGROUND = "QEMU background, thrown away"
SCAN = "bare memory scan"
IN_BACKGROUND = "--live=background"
SNAPSHOT = "background-snapshot"
"""QEMU's capability."""


@dataclass(frozen=True)
class PauseWay:
    """
    A way to save a running guest, which runs again afterwards.

    :param prepare: what is set in the monitor before the clock starts
    :param run: its ``pause_seconds`` tell how long the guest stood still
    """

    name: str
    role: str
    prepare: Callable[[Running, int], None]
    run: Callable[[Running, Path, int], Took]


def _by_snapmig(*options: str) -> Callable[[Running, Path, int], Took]:
    return lambda running, path, jobs: snapmig_save(running, path, jobs, *options)


def _migrated(*options: str) -> Callable[[Running, Path, int], Took]:
    # QEMU's own figure tells how much of the pause was over before the guest was let go.
    def run(running: Running, path: Path, jobs: int) -> Took:
        took = snapmig_save(running, path, jobs, *options)
        found = running.guest.execute("query-migrate")
        return replace(took, said={**took.said, "downtime_s": downtime(found)})

    return run


def _live_away(running: Running, _path: Path, jobs: int) -> Took:
    took = throw_away(running, jobs)
    running.guest.cont()
    return took


def _background_away(running: Running, _path: Path, _jobs: int) -> Took:
    took = throw_away(running, 0)
    return replace(took, said={**took.said, "pause_seconds": stood_still(running)})


def _scan(running: Running, _path: Path, jobs: int) -> Took:
    running.guest.stop()
    took = scan(running.memory, jobs)
    running.guest.cont()
    return Took(took.slowest, took.cpu, {"pause_seconds": took.slowest})


def _set_live(running: Running, jobs: int) -> None:
    set_capabilities(running, jobs, MULTIFD, "auto-converge")


def _set_background(running: Running, jobs: int) -> None:
    set_capabilities(running, jobs, SNAPSHOT)


WAYS = (
    PauseWay(SNAPMIG, SNAPMIG, set_none, _by_snapmig()),
    PauseWay(LIVE, SNAPMIG, set_none, _by_snapmig("--live")),
    PauseWay(LIVE_MULTIFD, SNAPMIG, set_none, _migrated("--live", "--via", "multifd")),
    PauseWay(OWN_LIVE, "limit", _set_live, _live_away),
    PauseWay(BACKGROUND, SNAPMIG, set_none, _migrated(IN_BACKGROUND)),
    PauseWay(OWN_BACKGROUND, "limit", _set_background, _background_away),
    PauseWay(SCAN, "limit", set_none, _scan),
)
NAMES = tuple(way.name for way in WAYS)
IN_THE_BACKGROUND = (BACKGROUND, OWN_BACKGROUND)


def takes(verb: str, *words: str) -> bool:
    """Return True if a verb of snapmig has these options, tried with two files."""
    from snapmig.commands.main import build_parser

    try:
        with redirect_stderr(io.StringIO()):
            build_parser(verb).parse_args([verb, *words, "one", "other"])
    except SystemExit:
        return False
    return True


def no_background(running: Running) -> str:
    """Return why nothing can be saved in the background here, an empty text if it can."""
    if not takes("save", IN_BACKGROUND):
        return f"snapmig save has no {IN_BACKGROUND}"
    try:
        _set_background(running, 1)
    except MigrationError as error:
        return str(error)
    return ""
