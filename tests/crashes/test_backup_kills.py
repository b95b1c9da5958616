"""Backup runs and prunes killed at any call: each snapshot is whole, and the next run works."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import snapmig
from tests.crashes.conftest import POINTS, Runs
from tests.crashes.shim import Action

VERBS = ("run", "prune")
KILLS = (Action.KILL_ALL, Action.KILL_SELF, Action.KILL_TORN)


@pytest.fixture(scope="module")
def filled(runs, tmp_path_factory):
    """Give a repository with a full snapshot and two that build on it, and its configuration."""
    folder = tmp_path_factory.mktemp("filled") / "web"
    folder.mkdir(mode=0o700)
    parent = None
    for number, image in enumerate(("older.ram", "a.ram", "older.ram")):
        time = datetime.now(UTC) - timedelta(days=3 - number)
        path = folder / f"{time:%Y-%m-%dT%H-%M-%SZ}.snap"
        snapmig.save(runs.given / image, path, parent=parent, page_digests=True, jobs=1)
        parent = path
    config = folder.with_name("backup.toml")
    config.write_text(
        f"""
        repository = "{runs.work}"
        [guests.web]
        source = "{runs.given / "a.ram"}"
        full_every = 4
        retention = {{ keep_last = 2 }}
        """
    )
    return folder, config


def prepare(runs: Runs, filled: tuple[Path, Path]) -> None:
    """Make the repository as it is before a run."""
    shutil.rmtree(runs.work, ignore_errors=True)
    runs.work.mkdir()
    shutil.copytree(filled[0], runs.work / "web")


def problem(runs: Runs, filled: tuple[Path, Path], verb: str, action: Action, at: int) -> object:
    """Kill a run at a call, check all snapshots, and start the next run."""
    config = filled[1]
    prepare(runs, filled)
    ended = runs.run(["backup", verb, config], action, at)
    for words in (["check", config], ["run", config], ["check", config]):
        found = runs.run(["backup", *words])
        if found.code != 0 or found.left or ended.left:
            return words, found
    names = [path.name for path in (runs.work / "web").iterdir()]
    left = [name for name in names if not name.endswith(".snap") and name != ".lock"]
    return left or None


def problems(runs: Runs, filled: tuple[Path, Path], verb: str, most: int) -> list[str]:
    """Kill at some calls, chosen by chance; return all that went wrong."""
    prepare(runs, filled)
    assert runs.run(["backup", verb, filled[1]]).code == 0
    chosen = [(action, at) for action in KILLS for at in range(1, runs.control.count + 1)]
    chosen = random.Random(verb).sample(chosen, min(most, len(chosen)))
    POINTS["kills"] += len(chosen)
    return [
        f"{verb}, {action.name} at {at}: {found}"
        for action, at in chosen
        if (found := problem(runs, filled, verb, action, at)) is not None
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_some_calls(runs, filled, verb):
    """Killed at calls chosen by chance, always the same ones."""
    assert problems(runs, filled, verb, 2) == []


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_many_calls(runs, filled, verb):
    """Killed alone, with its workers, and in the middle of a write."""
    assert problems(runs, filled, verb, 60) == []
