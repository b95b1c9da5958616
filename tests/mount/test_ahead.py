"""Facts about packets decoded before they are asked for, and the file that remembers them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import snapmig
from snapmig.container.reader import SnapshotFile
from snapmig.operations.mount import changed_last
from tests.mount.conftest import BLOCKS, PACKET, SIZE, save
from tests.support import program, ram
from tests.support.mounts import mounted


def counts(log: Path) -> tuple[int, int]:
    """Return how many packets were decoded and asked for in the last mount."""
    line = log.read_text().splitlines()[-1]
    found = re.search(r"(\d+) of \d+ packets were decoded, (\d+) asked for", line)
    return int(found[1]), int(found[2])


def read_packets(files: Path, numbers: list[int]) -> None:
    """Read a page of some packets."""
    with (files / "guest.ram").open("rb", buffering=0) as file:
        for number in numbers:
            file.seek(number * PACKET + 8192)
            file.read(4096)


def test_remembers_the_order_of_first_touches(shm: Path) -> None:
    """The file has the packets in the order in which they were asked for."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt", "--working-set", shm / "set") as files:
        read_packets(files, [40, 3, 20])
    found = json.loads((shm / "set").read_bytes())["packets"]
    assert [number for number in found if number in (40, 3, 20)] == [40, 3, 20]


@pytest.mark.sweep
def test_keeps_a_known_set_as_it_is(shm: Path) -> None:
    """A file that is there is used, not written."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt", "--working-set", shm / "set") as files:
        read_packets(files, [40, 3, 20])
    before = (shm / "set").read_bytes()
    with mounted(snapshot, shm / "mnt", "--working-set", shm / "set") as files:
        read_packets(files, [5])
    assert (shm / "set").read_bytes() == before


@pytest.mark.sweep
def test_tells_how_much_was_decoded(shm: Path) -> None:
    """In the end the log has the numbers of packets decoded and asked for."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt") as files:
        read_packets(files, [40])
    decoded, asked = counts(shm / "mnt.log")
    assert 1 <= asked <= decoded <= 3


def test_a_foreign_set_is_refused(shm: Path) -> None:
    """A file that is no working set is an error of usage, and nothing is mounted."""
    snapshot, _ = save(shm)
    (shm / "set").write_text("{}")
    (shm / "mnt").mkdir()
    done = program.run("mount", snapshot, shm / "mnt", "--working-set", shm / "set")
    done.fails(2, "not a working set", lines=1)


def test_what_changed_last_comes_first(shm: Path) -> None:
    """Without a recorded order it is the packets that an incremental snapshot has itself."""
    parent, content = save(shm)
    changed = bytearray(content[:SIZE])
    for packet in (3, 9):
        changed[packet * PACKET] ^= 0xFF
    ram.write(shm / "0.ram", bytes(changed))
    images = [(block, shm / f"{number}.ram") for number, block in enumerate(BLOCKS)]
    snapmig.save(images, shm / "young", parent=parent, arch="x86_64")
    with SnapshotFile(str(shm / "young")) as young, SnapshotFile(str(parent)) as old:
        assert (changed_last(young), changed_last(old)) == ([3, 9], [])
