"""Facts about guest physical addresses: a snapshot's core agrees with QEMU's own dump."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.support.guests import cores, migration
from tests.support.guests.qemu import PROGRAM, GuestConfig
from tests.support.guests.resume import Memory, Monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.requirements import requires

pytestmark = pytest.mark.guest

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
WORDS = re.compile("max.ram.below.4g|Sibling indicated error")
"""RAM split at a few MiB, and a destination that refuses a guest which is to stay paused."""
SPLIT = Layout(ram=32 * MIB, below_4g=8 * MIB)


@dataclass(frozen=True)
class Kind:
    """A guest with RAM in several places."""

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
        """Return the core made from the snapshot."""
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
        guest.expected_words = WORDS
        tiny.wait_passes(guest, 1)
        guest.stop()
        migration.dump_memory(guest, monitor.dump)
        snapmig.save(guest.monitor, monitor.snapshot, jobs=1)
        guest.cont()
        tiny.wait_passes(guest, 1)
        guest.stop()
        migration.dump_memory(guest, file.dump)
        if guest.version >= (9, 0):
            migration.prepare(guest, [migration.MAPPED_RAM])
            migration.save_to(guest, f"file:{folder / 'migration'}")
        else:
            migration.prepare(guest, [])
            migration.save_to(guest, f"exec:cat > {folder / 'migration'}")
    snapmig.save(folder / "migration", file.snapshot, jobs=1)
    return {"monitor": monitor, "file": file}


@pytest.mark.parametrize("name", KINDS)
def test_a_core_has_the_ranges_of_the_dump(saved: Saved, name: str) -> None:
    """A guest saved through its monitor has RAM and firmware at the addresses of QEMU's dump."""
    made = saved(name)["monitor"]
    assert cores.ranges(made.core()) == cores.ranges(made.dump)


@pytest.mark.parametrize("name", KINDS)
def test_a_core_has_the_pages_of_the_dump(saved: Saved, name: str) -> None:
    """Each page of that guest equals the page at its address in QEMU's dump."""
    made = saved(name)["monitor"]
    assert [*cores.differing(made.core(), made.dump)] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_raw_image_by_address_has_the_bytes_of_the_dump(saved: Saved, name: str) -> None:
    """The bytes at each address of raw-by-address equal those in QEMU's dump."""
    made = saved(name)["monitor"]
    image = made.snapshot.with_suffix(".ram")
    snapmig.restore(made.snapshot, image, format="raw-by-address", force=True, jobs=1)
    with image.open("rb") as ours, made.dump.open("rb") as theirs:
        for start, stop, place in cores.loads(made.dump):
            ours.seek(start)
            theirs.seek(place)
            assert ours.read(stop - start) == theirs.read(stop - start)


@pytest.mark.parametrize("name", KINDS)
def test_a_core_of_a_migration_file_has_the_pages_of_the_dump(saved: Saved, name: str) -> None:
    """The main RAM of a migration file is at the addresses of QEMU's dump, without asking QEMU."""
    made = saved(name)["file"]
    assert [*cores.differing(made.core(), made.dump)] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_core_of_a_migration_file_has_all_of_the_main_ram(saved: Saved, name: str) -> None:
    """From a migration file RAM below and above 4 GiB comes in full length."""
    made = saved(name)["file"]
    expected = [(0, SPLIT.below_4g), (4 * GIB, 4 * GIB + SPLIT.ram - (SPLIT.below_4g or 0))]
    assert cores.ranges(made.core()) == expected


@dataclass(frozen=True)
class Still:
    """A guest that never runs, so that its memory keeps its prepared contents."""

    sizes: Sequence[int]
    machine: str = "q35"
    program: str = PROGRAM
    options: Sequence[str] = ()
    nodes: bool = False


ARM = "qemu-system-aarch64"
ARM_OPTIONS = ("-cpu", "cortex-a57")
DIMM = ("-m", "3G,slots=2,maxmem=8G", "-device", "pc-dimm,memdev=m1,id=dimm0")
STILLS = {
    "q35 below the gap": Still([2816 * MIB - 16 * MIB]),
    "q35 of 2.75 GiB": Still([2816 * MIB]),
    "q35 of 3 GiB": Still([3 * GIB]),
    "q35 of 5 GiB": Still([5 * GIB]),
    "i440fx of 3 GiB": Still([3 * GIB], "pc"),
    "i440fx of 3.5 GiB": Still([3584 * MIB], "pc"),
    "i440fx of 5 GiB": Still([5 * GIB], "pc"),
    "two nodes": Still([2 * GIB, 3 * GIB], nodes=True),
    "a DIMM": Still([3 * GIB, GIB], options=DIMM),
    "virt of 5 GiB": Still([5 * GIB], "virt", ARM, ARM_OPTIONS),
    "virt of two nodes": Still([GIB, GIB], "virt", ARM, ARM_OPTIONS, nodes=True),
}
SMALL = {
    "q35": Still([64 * MIB], "q35,max-ram-below-4g=16M"),
    "virt": Still([64 * MIB], "virt", ARM, ARM_OPTIONS),
    "virt of two nodes": Still([16 * MIB, 48 * MIB], "virt", ARM, ARM_OPTIONS, nodes=True),
}


MACHINES = {PROGRAM: ("EM_X86_64", 64, True), ARM: ("EM_AARCH64", 64, True)}
"""QEMU's dump of a PC whose firmware did not run yet says that it is one of 32 bits."""


def stamp(path: Path, size: int) -> None:
    """Make a sparse file with a page of its own every so often, and at each end of it."""
    step = max(size // 64, PAGE)
    with path.open("wb") as file:
        file.truncate(size)
        for at in (*range(0, size, step), size - PAGE):
            file.seek(at)
            file.write(hashlib.shake_128(f"{path.name} {at}".encode()).digest(PAGE))


@contextmanager
def standing(folder: Path, still: Still) -> Iterator[Monitored]:
    """Start a guest paused, with its memory in files of the folder."""
    backends = []
    for number, size in enumerate(still.sizes):
        file = folder / f"m{number}"
        stamp(file, size)
        backends.append(f"memory-backend-file,id=m{number},size={size},share=on,mem-path={file}")
    nodes = [f"node,memdev=m{number}" for number in range(len(still.sizes))] if still.nodes else []
    options = [word for node in nodes for word in ("-numa", node)]
    memory = Memory(backends, machine="" if nodes else ",memory-backend=m0", options=options)
    ram = sum(still.sizes) if nodes else still.sizes[0]
    config = GuestConfig(ram, machine=still.machine, cpus=max(1, len(nodes)))
    extra = ("-S", *still.options)
    with Monitored(still.program, replace(config, extra=extra), memory) as guest:
        guest.expected_words = WORDS
        yield guest


def check_still(folder: Path, still: Still) -> None:
    """Compare a core of a paused guest with QEMU's dump, and its RAM with its files."""
    with standing(folder, still) as guest:
        migration.dump_memory(guest, folder / "dump")
        snapmig.save(guest.monitor, folder / "snap", jobs=1)
    snapmig.restore(folder / "snap", folder / "core", format="elf", jobs=1)
    ours, theirs = cores.ranges(folder / "core"), cores.ranges(folder / "dump")
    assert [*cores.differing(folder / "core", folder / "dump")] == []
    assert all(any(a <= start and stop <= b for a, b in theirs) for start, stop in ours)
    # Firmware is in no shared file, so only the dump has it.
    sizes = [sum(stop - start for start, stop in found) for found in (ours, theirs)]
    assert sum(still.sizes) - MIB <= sizes[0] <= sizes[1] <= sizes[0] + MIB
    assert cores.machine(folder / "core") == MACHINES[still.program]


@pytest.mark.parametrize("name", SMALL)
def test_a_core_of_a_guest_that_shares_memory_is_the_dump(
    program: str, tmp_path: Path, name: str
) -> None:
    """Every page of RAM in files is at its address in QEMU's dump, on PCs and on Arm."""
    del program
    requires(SMALL[name].program)
    check_still(tmp_path, SMALL[name])


@pytest.mark.sweep
@pytest.mark.parametrize("name", STILLS)
def test_a_core_of_a_large_guest_is_the_dump(program: str, tmp_path: Path, name: str) -> None:
    """The same holds for guests of real sizes, without being told how their machines split RAM."""
    del program
    requires(STILLS[name].program)
    check_still(tmp_path, STILLS[name])
    for path in tmp_path.iterdir():
        path.unlink()
