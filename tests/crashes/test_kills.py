"""Runs killed at every system call that changes something: nothing is torn, the next run works."""

from __future__ import annotations

import random

import pytest

from tests.crashes.conftest import POINTS, Runs
from tests.crashes.scenarios import SCENARIOS, Scenario
from tests.crashes.shim import Action, Call

KILLS = (Action.KILL_ALL, Action.KILL_SELF, Action.KILL_PARENT, Action.KILL_TORN)
QUICK = 2
"""Points of a run in the quick selection."""


def points(runs: Runs, scenario: Scenario, action: Action) -> list[int]:
    """Return the calls at which to act, by a run without an end."""
    scenario.prepare(runs.given, runs.work)
    ended = runs.run(scenario.words(runs.given, runs.work), logging=True)
    assert ended.code == 0, ended
    assert scenario.unfinished(runs.given, runs.work) == []
    kinds = [entry.kind for entry in runs.control.log()]
    count = runs.control.count
    if action == Action.KILL_TORN and len(kinds) == count:
        return [at for at, kind in enumerate(kinds, 1) if kind == Call.WRITE]
    return list(range(1, count + 1))


def problem(runs: Runs, scenario: Scenario, action: Action, at: int) -> str | None:
    """Kill a run at a call, look at what is there, and start the next run."""
    scenario.prepare(runs.given, runs.work)
    ended = runs.run(scenario.words(runs.given, runs.work), action, at)
    torn = scenario.torn(runs.given, scenario.named(runs.work))
    if torn or ended.left:
        return f"{torn}, processes left: {ended.left}"
    if ended.code > 0:  # a worker was killed: the parent has said so, and cleaned up
        keeps = "--resume" in map(str, scenario.words(runs.given, runs.work))
        names = [] if keeps else scenario.leftovers(runs.work)
        if ended.code != 5 or ended.err.count("\n") != 1 or names:
            return f"exit code {ended.code}, {ended.err!r}, left {names}"
    again = runs.run(scenario.next_words(runs.given, runs.work))
    if again.code != 0 or again.left:
        return f"the next run: {again}"
    wrong = scenario.unfinished(runs.given, runs.work)
    return f"after the next run: {wrong}" if wrong else None


def problems(runs: Runs, name: str, action: Action, chosen: list[int]) -> list[str]:
    """Return all that went wrong, with the points."""
    POINTS["kills"] += len(chosen)
    return [
        f"{name}, {action.name} at {at}: {found}"
        for at in chosen
        if (found := problem(runs, SCENARIOS[name], action, at)) is not None
    ]


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_some_calls(runs, name):
    """Killed at calls chosen by chance, always the same ones."""
    action = KILLS[list(SCENARIOS).index(name) % len(KILLS)]
    chosen = points(runs, SCENARIOS[name], action)
    chosen = random.Random(name).sample(chosen, min(QUICK, len(chosen)))

    assert problems(runs, name, action, chosen) == []


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("action", KILLS, ids=lambda action: action.name)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_every_call(runs, name, action):
    """Killed at each call in turn: the process that makes it, its parent, all, or in the middle."""
    chosen = points(runs, SCENARIOS[name], action)

    assert problems(runs, name, action, chosen) == []
