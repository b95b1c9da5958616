"""Disks that are full or fail at any call: one sentence, nothing torn, nothing left."""

from __future__ import annotations

import errno
import random

import pytest

from tests.crashes.conftest import POINTS, Ended, Runs
from tests.crashes.scenarios import SCENARIOS, Scenario
from tests.crashes.shim import Action, Call

FOR_GOOD = 1 << 60
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
FAILING = (Call.OPEN, Call.WRITE, Call.TRUNCATE, Call.SYNC, Call.RENAME, Call.LINK, Call.MKDIR)
"""Files can still be removed on a full disk."""
RESTARTED = (Call.OPEN, Call.WRITE, Call.TRUNCATE, Call.SYNC, Call.PUNCH, Call.READ)
HALVED = (Call.WRITE, Call.READ)
READ_ONLY = (
    *("restore", "restore-resume", "restore-microvm", "merge", "rebase"),
    *("save", "save-incremental"),
)
"""Runs that read snapshots with pread, and images with preadv."""


def run(runs: Runs, scenario: Scenario, action: Action, at: int, **how) -> Ended:
    """Run the scenario with a disk that fails."""
    scenario.prepare(runs.given, runs.work)
    return runs.run(scenario.words(runs.given, runs.work), action, at, **how)


def problem(runs: Runs, scenario: Scenario, ended: Ended) -> object:
    """Return what is wrong after a run."""
    if ended.code == 0:
        return scenario.unfinished(runs.given, runs.work)
    torn = scenario.torn(runs.given, scenario.named(runs.work))
    keeps = "--resume" in map(str, scenario.words(runs.given, runs.work))
    before = set(scenario.over)
    left = [] if keeps else [each for each in scenario.leftovers(runs.work) if each not in before]
    if "it is kept as" in ended.err:  # where no name can be changed any more
        left = [name for name in left if not name.endswith(".old")]
    sentence = ended.err.count("\n") == 1 and "bug" not in ended.err
    if ended.code != 1 or not sentence or torn or left or ended.left:
        return ended, torn, left
    again = runs.run(scenario.next_words(runs.given, runs.work))
    return again if again.code else scenario.unfinished(runs.given, runs.work)


def problems(runs: Runs, name: str, most: int | None) -> list[str]:
    """Let calls fail once and for good; return all that went wrong."""
    scenario, wrong = SCENARIOS[name], []
    run(runs, scenario, Action.NOTHING, 0, calls=FAILING)
    points = [
        (at, last, number)
        for at in range(1, runs.control.count + 1)
        for last in (at, FOR_GOOD)
        for number in ERRORS
    ]
    if most is not None:
        points = random.Random(name).sample(points, most)
    POINTS["failing calls"] += len(points)
    for at, last, number in points:
        ended = run(runs, scenario, Action.FAIL, at, last=last, number=number, calls=FAILING)
        if found := problem(runs, scenario, ended):
            wrong.append(f"{name}, {errno.errorcode[number]} from {at} to {last}: {found}")
    return wrong


@pytest.mark.parametrize("name", SCENARIOS)
def test_some_calls_that_fail(runs, name):
    """A call that fails once, or for good."""
    assert problems(runs, name, 1) == []


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_calls_that_fail(runs, name):
    """The same at 60 points of each run."""
    assert problems(runs, name, 60) == []


@pytest.mark.parametrize("name", ["save-incremental", "restore", "rebase"])
def test_short_writes_and_reads(runs, name):
    """Each write and each read moves half of what it was asked for."""
    ended = run(runs, SCENARIOS[name], Action.SHORT, 1, last=FOR_GOOD, calls=HALVED)

    assert (ended.code, SCENARIOS[name].unfinished(runs.given, runs.work)) == (0, [])


@pytest.mark.parametrize("name", ["save-incremental", "restore", "rebase"])
def test_interrupted_calls(runs, name):
    """A call that a signal interrupts is made again."""
    scenario = SCENARIOS[name]
    run(runs, scenario, Action.NOTHING, 0, calls=RESTARTED)
    for at in range(1, runs.control.count + 1, 7):
        ended = run(runs, scenario, Action.FAIL, at, number=errno.EINTR, calls=RESTARTED)
        found = scenario.unfinished(runs.given, runs.work)
        assert (at, ended.code, found) == (at, 0, [])


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_source_that_can_not_be_read(runs, name):
    """A snapshot or an image on a failing disk: exit code 1 and its name, or all is whole."""
    scenario, folder = SCENARIOS[name], runs.given.folder
    run(runs, scenario, Action.NOTHING, 0, calls=(Call.READ,), folder=folder)
    count = runs.control.count
    for at in random.Random(name).sample(range(1, count + 1), min(5, count)):
        how = {"last": FOR_GOOD, "number": errno.EIO, "calls": (Call.READ,), "folder": folder}
        ended = run(runs, scenario, Action.FAIL, at, **how)
        assert problem(runs, scenario, ended) == []
        assert ended.code == 0 or str(runs.given.folder.parent) in ended.err


@pytest.mark.parametrize("action", [Action.FAIL, Action.SHORT])
def test_an_image_that_can_not_be_read_is_looked_at_in_its_mapping(runs, action):
    """Reads that fail, or move half, from the middle of a save on: the snapshot is whole."""
    scenario = SCENARIOS["save"]
    how = {"calls": (Call.READ,), "folder": runs.given.folder}
    run(runs, scenario, Action.NOTHING, 0, **how)
    middle = runs.control.count // 2
    ended = run(runs, scenario, action, middle, last=FOR_GOOD, number=errno.EIO, **how)

    assert (ended.code, scenario.unfinished(runs.given, runs.work)) == (0, [])
