"""Facts about ``--level auto``: it compresses better where the disk is slow, and only there."""

import json
import subprocess

import numpy as np
import pytest

from tests.support import filesystems, program, ram
from tests.support.requirements import requires

MIB = 1 << 20
SLOW = 8 * MIB
"""Bytes a second: a tenth of what the fastest compressor gives."""
# The level that each of them starts with, and its fastest.
LEVELS = {"zlib": (1, 0), "zstd": (1, -3)}

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def image(shared_shm):
    """Give an image of 96 MiB of text."""
    return ram.write(shared_shm / "a", np.tile(ram.text(4096), (6, 1)))


def _levels(image, snapshot, compression, *before):
    # Which levels a save chose: how many batches it gave to each.
    options = ("--compression", compression, "--level", "auto", "-j", "2", "--json")
    result = subprocess.run(
        [*before, *program.PROGRAM, "save", image, snapshot, *options],
        capture_output=True,
        text=True,
        check=True,
        env=program.ENVIRONMENT,
    )
    return {int(level): count for level, count in json.loads(result.stdout)["levels"].items()}


@pytest.mark.parametrize("compression", LEVELS)
def test_a_slow_disk_gets_a_better_level(image, tmp_path, shm, compression):
    """Where writing takes most of the time, the level goes up from where it started."""
    requires("losetup")
    requires("mkfs.ext4")
    with filesystems.slow(shm / "disk", tmp_path / "slow", SLOW) as (place, throttled):
        levels = _levels(image, place / "s", compression, *throttled)

    assert max(levels) > LEVELS[compression][0]


@pytest.mark.parametrize("compression", LEVELS)
def test_memory_gets_the_fastest_level(image, shm, compression):
    """Where writing takes next to no time, the level goes down, and never up."""
    levels = _levels(image, shm / "s", compression)

    assert (max(levels), min(levels)) == LEVELS[compression]
