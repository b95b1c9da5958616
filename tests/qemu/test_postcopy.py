"""Facts about guests that run before their memory has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.qemu.sweep import sweep
from tests.support.guests.resume import LAYOUT, Memory, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State

pytestmark = pytest.mark.guest

PRIVATE = Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"])
SAVES: dict[str, dict[str, Any]] = {
    "shared": {"via": "shared"},
    "multifd": {"via": "multifd"},
    "background": {"live": "background"},
    "mapped-ram": {"via": "mapped-ram"},
    "stream": {"via": "stream"},
    "large packets": {"via": "multifd", "packet_size": "2M"},
    "child": {"via": "multifd"},
}
WAYS = [(kind, jobs) for kind in SAVES for jobs in (1, 2, 4)]
ESSENTIAL = [("shared", 2), ("multifd", 1), ("child", 2)]


@dataclass(frozen=True)
class Saved:
    """A snapshot, and where its guest stood."""

    path: Path
    state: State


@pytest.fixture(scope="module")
def saved(program: str, shared_shm: Path) -> Iterator[Callable[[str], Saved]]:
    """Give a function that saves a running guest in some way, once."""
    done: dict[str, Saved] = {}
    with make_monitored(program, shared_shm, file_memory(shared_shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)

        def save(kind: str) -> Saved:
            if kind not in done:
                path = shared_shm / f"{kind}.snap"
                parent = {"parent": save("multifd").path} if kind == "child" else {}
                snapmig.save(guest.monitor, path, jobs=2, **SAVES[kind], **parent)
                snapmig.restore(path, shared_shm / "check", block="ram", force=True)
                done[kind] = Saved(path, tiny.check_image(shared_shm / "check", LAYOUT))
            return done[kind]

        yield save


@pytest.mark.parametrize(("kind", "jobs"), sweep(WAYS, lambda way: way in ESSENTIAL))
def test_counts_on(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str, jobs: int
) -> None:
    """A guest continues from its saved state while its memory comes, with every page right."""
    found = saved(kind)
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        result = snapmig.restore(found.path, guest.monitor, jobs=jobs, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert (result.via, tiny.goes_on(counted, found.state, LAYOUT)) == ("postcopy", True)
