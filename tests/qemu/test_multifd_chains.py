"""Facts about incremental snapshots of guests that QEMU migrates to us."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.support import slots
from tests.support.guests.private import private_memory, ram_of, require_live
from tests.support.guests.qemu import REFUSED
from tests.support.guests.resume import LAYOUT, Monitored, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.steady import STEADY
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "none": {"compression": "none", "page_digests": False},
    "zstd": {"compression": "zstd"},
    "lz4": {"compression": "lz4", "packet_size": "64K", "page_digests": False},
    "64K": {"packet_size": "64K"},
    "1M": {"packet_size": "1M", "deltas": True},
    "4M": {"packet_size": "4M", "compression": "zstd", "deltas": True, "page_digests": False},
    "deltas": {"deltas": True},
}
"""Options of snapshots; a packet of QEMU's has 512 KiB of RAM."""
OF_CHILDREN = ("deltas",)
ESSENTIAL = ("64K",)

all_options = pytest.mark.parametrize("name", sweep(OPTIONS, lambda name: name in ESSENTIAL))


@pytest.fixture(scope="module")
def guest(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest with memory of QEMU's own."""
    with make_monitored(program, shared_shm, private_memory()) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture(scope="module")
def shared(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest with memory in a shared file."""
    (shared_shm / "shared").mkdir()
    memory = file_memory(shared_shm / "shared" / "ram")
    with make_monitored(program, shared_shm / "shared", memory) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


def of_first(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for a snapshot without a parent."""
    return {name: value for name, value in options.items() if name not in OF_CHILDREN}


@all_options
@pytest.mark.parametrize("live", [False, True], ids=["paused", "live"])
def test_a_chain_of_a_running_guest(guest: Monitored, shm: Path, name: str, live: bool) -> None:
    """Two snapshots on an older one are each of one moment, sound, and take pages from it."""
    require_live(live=live)
    options = OPTIONS[name]
    paths = [shm / "0.snap", shm / "1.snap", shm / "2.snap"]
    snapmig.save(guest.monitor, paths[0], jobs=2, live=live, **of_first(options))
    same = []
    for parent, path in itertools.pairwise(paths):
        tiny.wait_passes(guest, 1)
        result = snapmig.save(guest.monitor, path, jobs=2, live=live, parent=parent, **options)
        same.append(result.same_pages)
    guest.rest()
    numbers = [ram_of(path, shm).number for path in paths]

    assert [snapmig.verify(path).problems for path in paths] == [()] * 3
    assert min(same) > LAYOUT.ram // 4096 // 4
    assert sorted(set(numbers)) == numbers


@pytest.mark.qemu("10.0")  # an older one saves a guest stopped by its owner only once
@all_options
def test_the_index_is_that_of_a_shared_save(shared: Monitored, shm: Path, name: str) -> None:
    """
    A stopped guest has one index, whichever way its RAM came, with a parent or without.

    Over multifd the firmware's blocks follow, which are in no shared file.
    """
    shared.expected_words = REFUSED
    options = OPTIONS[name] if "compression" in OPTIONS[name] else OPTIONS[name] | STEADY
    for number in range(2):
        tiny.wait_passes(shared, 1)
        shared.stop()
        for via in ("shared", "multifd"):
            more = {"parent": shm / f"{via}0", **options} if number else of_first(options)
            snapmig.save(shared.monitor, shm / f"{via}{number}", jobs=2, via=via, **more)
        shared.cont()
        shared.rest()
    for number in range(2):
        expected, found = (_index(shm / f"{via}{number}") for via in ("shared", "multifd"))
        assert len(found) > len(expected)
        assert found[: len(expected)] == expected


def _index(path: Path) -> list[bytes]:
    parts = slots.read(path)
    return slots.without_places(parts.index, parts.slots)
