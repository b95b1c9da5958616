"""Facts about Arm guests sent into a waiting QEMU."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.support.guests import cores, migration
from tests.support.guests.qemu import GuestConfig
from tests.support.guests.resume import Memory, Monitored
from tests.support.requirements import requires
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

PAGE, RAM = 4096, 64 << 20
PROGRAM = "qemu-system-aarch64"
REFUSED = re.compile("Sibling indicated error")
"""Said of a throw-away destination that a save refuses the rest of a migration."""
WAYS: dict[str, dict[str, Any]] = {
    "pages": {"wire": "none"},
    "frames": {"wire": "zstd"},
    "postcopy": {"postcopy": True},
}
TRIED = [(share, way) for share in ("on", "off") for way in WAYS]


def arm(backend: str, *options: str) -> Monitored:
    """Make an Arm guest without firmware, whose processor changes no memory."""
    config = replace(GuestConfig(RAM, machine="virt"), extra=("-cpu", "cortex-a57", *options))
    memory = Memory([f"{backend},id=ram,size={RAM}"], machine=",memory-backend=ram")
    return Monitored(PROGRAM, config, memory)


def stamp(path: Path) -> None:
    """Make a file with a page of its own every 64 KiB."""
    with path.open("wb") as file:
        for at in range(0, RAM, 1 << 16):
            file.seek(at)
            file.write(hashlib.shake_128(at.to_bytes(8)).digest(PAGE))
        file.truncate(RAM)


@pytest.mark.parametrize(("share", "way"), sweep(TRIED, lambda tried: tried == ("off", "postcopy")))
def test_comes_whole(shm: Path, share: str, way: str) -> None:
    """Saved from shared or private memory, it runs with every page of the snapshot's core."""
    requires(PROGRAM)
    stamp(shm / "ram")
    with arm(f"memory-backend-file,share={share},mem-path={shm / 'ram'}", "-S") as guest:
        guest.expected_words = REFUSED
        snapmig.save(guest.monitor, shm / "snap", compression="zstd", jobs=2)
    snapmig.restore(shm / "snap", shm / "core", format="elf", jobs=1)
    with arm("memory-backend-ram", "-incoming", "defer") as guest:
        snapmig.restore(shm / "snap", guest.monitor, jobs=2, **WAYS[way])
        assert guest.execute("query-status")["status"] == "running"
        guest.stop()
        migration.dump_memory(guest, shm / "dump")
    assert [*cores.differing(shm / "core", shm / "dump")] == []
    assert sum(stop - start for start, stop in cores.ranges(shm / "core")) >= RAM
