"""
Facts about hostile input: every reader takes it or refuses it in words, and writes nowhere else.

These are a few hundred inputs that are the same each time; `make fuzz` looks for others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.harness import Harness, made_harness, mutated, reader_names

SEED = 20261129
COUNTS = {"snapshots": 30, "guest_states": 40}
USUAL = 150


def tried(name: str, harness: Harness) -> int:
    """Try the seeds and what is made of them; return the number of inputs that were taken."""
    seeds = harness.reader.seeds()
    for seed in seeds:
        harness.try_one(seed)
    for data in mutated(seeds, Random(f"{SEED} {name}"), COUNTS.get(name, USUAL)):
        harness.try_one(harness.repair(data))
    return harness.tried - harness.refused


@pytest.mark.parametrize("name", reader_names())
def test_hostile_input_is_refused_or_harmless(
    name: str, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No input ends in another error, or in a file outside of the folder that was given."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert tried(name, made_harness(name, shm, monkeypatch.setenv)) > 0
