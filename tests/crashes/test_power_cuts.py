"""Power cuts at every moment of a run: what has a final name is whole, and the next run works."""

from __future__ import annotations

import random

import pytest

from tests.crashes.conftest import POINTS, Runs
from tests.crashes.disk import Disk, write_folder
from tests.crashes.scenarios import SCENARIOS, Scenario
from tests.crashes.shim import Entry

CHANCES = (0.0, 1.0, 0.1, 0.5, 0.5, 0.9)
"""Of each change that was not synced, for several cuts at one moment."""


def recorded(runs: Runs, scenario: Scenario) -> tuple[Disk, list[Entry]]:
    """Return the folder before a run, and all that the run changed."""
    scenario.prepare(runs.given, runs.work)
    disk = Disk(runs.work)
    ended = runs.run(scenario.words(runs.given, runs.work), logging=True)
    assert ended.code == 0, ended
    return disk, list(runs.control.log())


def cuts(runs: Runs, name: str, seed: int, chances: tuple[float, ...], next_runs: int) -> list[str]:
    """
    Cut the power after each call, and look; start the next run after a few cuts.

    Return all that went wrong.
    """
    scenario, wrong = SCENARIOS[name], []
    disk, entries = recorded(runs, scenario)
    dice = random.Random(f"{name} {seed}")
    cases = [(stop, chance) for stop in range(len(entries) + 1) for chance in chances]
    chosen = set(dice.sample(range(len(cases)), min(next_runs, len(cases))))
    for number, (stop, chance) in enumerate(cases):
        wanted = None if number in chosen else scenario.makes
        files = disk.after(entries[:stop], chance, dice, wanted)
        found: object = scenario.torn(runs.given, files)
        if not found and number in chosen:
            found = next_run(runs, scenario, files)
        if found:
            wrong.append(f"{name}, cut after call {stop}, chance {chance}: {found}")
    POINTS["power cuts"] += len(cases)
    return wrong


def next_run(runs: Runs, scenario: Scenario, files: dict[str, bytes]) -> object:
    """Start the next run on what a cut left; return what is wrong."""
    scenario.prepare(runs.given, runs.work)
    for name in scenario.over:
        (runs.work / name).unlink()
    write_folder(runs.work, files)
    ended = runs.run(scenario.next_words(runs.given, runs.work))
    return ended if ended.code else scenario.unfinished(runs.given, runs.work)


@pytest.mark.parametrize("name", SCENARIOS)
def test_power_cuts(runs, name):
    """After each call, of what was not synced nothing, all, or half is there."""
    assert cuts(runs, name, 1, CHANCES[:4], 1) == []


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_power_cuts(runs, name):
    """The same with more chances, and more runs afterwards."""
    assert cuts(runs, name, 2, CHANCES * 3, 60) == []
