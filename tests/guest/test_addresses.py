"""Facts about guest physical addresses: a snapshot's core has what QEMU's own dump has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.guest.resume import Memory, Monitored
from tests.guests import cores, migration
from tests.guests.tiny import guest as tiny
from tests.guests.tiny.guest import Layout

pytestmark = pytest.mark.guest

MIB, GIB = 1 << 20, 1 << 30
SPLIT = Layout(ram=32 * MIB, below_4g=8 * MIB)


@dataclass(frozen=True)
class Kind:
    """A guest whose RAM is in several places."""

    backends: Sequence[str] = (f"memory-backend-ram,id=ram,size={SPLIT.ram}",)
    machine: str = "q35"
    memory: str = ",memory-backend=ram"
    options: Sequence[str] = ()


NODES = [f"memory-backend-ram,id=ram-node{n},size={SPLIT.ram // 2}" for n in (1, 0)]
KINDS = {
    "q35": Kind(),
    "i440fx": Kind(machine="pc"),
    "vga": Kind(options=("-device", "VGA,vgamem_mb=4")),
    "numa": Kind(
        NODES,
        memory="",
        options=("-numa", "node,memdev=ram-node0", "-numa", "node,memdev=ram-node1"),
    ),
    "dimm": Kind(
        (*Kind().backends, f"memory-backend-ram,id=extra,size={16 * MIB}"),
        options=("-m", "32M,slots=2,maxmem=1G", "-device", "pc-dimm,memdev=extra,id=dimm0"),
    ),
}


@dataclass(frozen=True)
class Made:
    """A snapshot, and QEMU's own dump of the same moment."""

    snapshot: Path
    dump: Path

    def core(self, **options: Any) -> Path:
        """Return the core that the snapshot becomes."""
        path = self.snapshot.with_suffix(".core")
        snapmig.restore(self.snapshot, path, format="elf", force=True, jobs=1, **options)
        return path


Saved = Callable[[str], dict[str, Made]]


@pytest.fixture(scope="module")
def saved(program: str, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Give a function that saves a guest of a kind through its monitor, and as a file, once."""
    done: dict[str, dict[str, Made]] = {}

    def save(name: str) -> dict[str, Made]:
        if name not in done:
            done[name] = save_kind(program, tmp_path_factory.mktemp(name), KINDS[name])
        return done[name]

    return save


def save_kind(program: str, folder: Path, kind: Kind) -> dict[str, Made]:
    """Pause a guest twice: for a save through its monitor, and for one by QEMU to a file."""
    monitor = Made(folder / "monitor.snap", folder / "monitor.dump")
    file = Made(folder / "file.snap", folder / "file.dump")
    config = tiny.config(
        tiny.write_sector(folder, SPLIT), SPLIT, machine=kind.machine, extra=kind.options
    )
    with Monitored(program, config, Memory(kind.backends, machine=kind.memory)) as guest:
        tiny.wait_passes(guest, 1)
        guest.stop()
        migration.dump_memory(guest, monitor.dump)
        snapmig.save(guest.monitor, monitor.snapshot, jobs=1)
        guest.cont()
        tiny.wait_passes(guest, 1)
        guest.stop()
        migration.dump_memory(guest, file.dump)
        migration.prepare(guest, [migration.MAPPED_RAM])
        migration.save_to(guest, f"file:{folder / 'mapped-ram'}")
    snapmig.save(folder / "mapped-ram", file.snapshot, jobs=1)
    return {"monitor": monitor, "file": file}


@pytest.mark.parametrize("name", KINDS)
def test_a_core_has_the_ranges_of_the_dump(saved: Saved, name: str) -> None:
    """A guest that was saved through its monitor has RAM and firmware where QEMU's dump has it."""
    made = saved(name)["monitor"]
    assert cores.ranges(made.core()) == cores.ranges(made.dump)


@pytest.mark.parametrize("name", KINDS)
def test_a_core_has_the_pages_of_the_dump(saved: Saved, name: str) -> None:
    """Each page of that guest is the one that QEMU's dump has at its address."""
    made = saved(name)["monitor"]
    assert [*cores.differing(made.core(), made.dump)] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_core_of_a_migration_file_has_the_pages_of_the_dump(saved: Saved, name: str) -> None:
    """Of a migration file the main RAM is where QEMU's dump has it, without asking QEMU."""
    made = saved(name)["file"]
    assert [*cores.differing(made.core(), made.dump)] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_core_of_a_migration_file_has_all_of_the_main_ram(saved: Saved, name: str) -> None:
    """From a migration file comes RAM below and above 4 GiB as long as it is."""
    made = saved(name)["file"]
    expected = [(0, SPLIT.below_4g), (4 * GIB, 4 * GIB + SPLIT.ram - (SPLIT.below_4g or 0))]
    assert cores.ranges(made.core()) == expected
