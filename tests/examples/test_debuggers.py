"""Facts about the examples for drgn and volatility3: both read a snapshot in place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import snapmig
from examples import drgn_snapshot
from tests.support.elf_cores import noise
from tests.support.guests import debuggable
from tests.support.requirements import lacks

FOLDER = Path(drgn_snapshot.__file__).parent


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the snapshot of a Linux guest."""
    return debuggable.save_linux(tmp_path_factory.mktemp("linux"))


def banners(snapshot: Path, cache: Path) -> list[int]:
    """Return the addresses of the banners that volatility3 finds in a snapshot."""
    program = Path(sys.executable).with_name("vol")
    if not program.exists():
        lacks("volatility3")
    options = ["-q", "--offline", "--cache-path", cache, "-p", FOLDER / "volatility3"]
    command = [program, *options, "-r", "json", "-f", snapshot, "banners"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [item["Offset"] for item in json.loads(found)]


@pytest.mark.guest
@pytest.mark.sweep
def test_drgn_reads_the_banner_of_a_snapshot(snapshot: Path) -> None:
    """It finds note, page tables and symbols through snapmig.open()."""
    command = [sys.executable, drgn_snapshot.__file__, snapshot]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found.startswith("Linux version 6")
    assert found.strip().encode() in debuggable.IMAGE.read_bytes()


@pytest.mark.guest
@pytest.mark.sweep
def test_volatility_finds_the_banners_of_a_snapshot(snapshot: Path, tmp_path: Path) -> None:
    """Each at its guest physical address."""
    image = debuggable.IMAGE.read_bytes()
    places = banners(snapshot, tmp_path)
    assert places
    assert all(image.startswith(b"Linux version 6", place) for place in places)


@pytest.mark.sweep
def test_volatility_sees_ram_at_its_addresses(tmp_path: Path) -> None:
    """Also above a gap, and of several blocks."""
    banner = b"Linux version 6.1.0 (test)\0"
    (tmp_path / "low").write_bytes(noise(3))
    (tmp_path / "high").write_bytes(noise(1) + banner.ljust(4096, b"x") + noise(1))
    low, high = (snapmig.RamBlock.at(at, 12288, name) for at, name in ((0, "a"), (5 << 30, "b")))
    blocks = [(high, tmp_path / "high"), (low, tmp_path / "low")]
    snapmig.save(blocks, tmp_path / "snap", jobs=1)
    assert banners(tmp_path / "snap", tmp_path) == [(5 << 30) + 4096]


def test_a_snapshot_without_a_kernel_is_refused(tmp_path: Path) -> None:
    """One sentence says what is missing."""
    (tmp_path / "ram").write_bytes(noise(4))
    snapmig.save(tmp_path / "ram", tmp_path / "snap", jobs=1)
    command = [sys.executable, drgn_snapshot.__file__, tmp_path / "snap"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (
        1,
        f"{tmp_path / 'snap'}: has no VMCOREINFO: is it a Linux guest's?\n",
    )
