"""Facts about ``--compression auto``: it stores less where the disk is slow, and only there."""

import json
import subprocess

import numpy as np
import pytest

from tests.support import filesystems, program, ram
from tests.support.requirements import requires

MIB = 1 << 20
SLOW = 4 * MIB
"""Bytes a second: less than the fastest compressor gives even on a busy machine."""
AUTO = ("--compression", "auto")
LEVELS = ("--compression", "zlib", "--level", "auto")

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def image(shared_shm):
    """Give an image of 96 MiB of text."""
    return ram.write(shared_shm / "a", np.tile(ram.text(4096), (6, 1)))


def _codecs(image, snapshot, options, *before):
    # The bytes of pages that each codec got.
    result = subprocess.run(
        [*before, *program.PROGRAM, "save", image, snapshot, *options, "-j", "2", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=program.ENVIRONMENT,
    )
    return dict(json.loads(result.stdout)["codecs"])


@pytest.mark.parametrize(("options", "best"), [(AUTO, "zstd"), (LEVELS, "zlib 3")])
def test_a_slow_disk_gets_the_better_codecs(image, tmp_path, shm, options, best):
    """Where workers wait for the disk, packets get a codec that makes them smaller."""
    requires("losetup")
    requires("mkfs.ext4")
    requires("chrt")  # who waits for a processor does not wait for the disk
    with filesystems.slow(shm / "disk", tmp_path / "slow", SLOW) as (place, throttled):
        codecs = _codecs(image, place / "s", options, *throttled, "chrt", "-r", "10")

    assert any(name.startswith(best) for name in codecs)


def test_memory_gets_no_slow_codec(image, shm):
    """Where nobody waits for the destination, no packet gets a codec that takes long."""
    requires("chrt")
    codecs = _codecs(image, shm / "s", AUTO, "chrt", "-r", "10")

    assert not {"zstd 6", "zstd 9"} & codecs.keys()
