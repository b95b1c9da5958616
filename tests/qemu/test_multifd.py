"""Facts about guests that QEMU migrates to us: saved with all kinds of memory, and resumed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.operations.save import SaveResult
from tests.qemu.private import (
    HUGE_PAGES,
    MEMORIES,
    private_memory,
    ram_of,
    require_live,
    status,
)
from tests.support import filesystems
from tests.support.guests import migration
from tests.support.guests.migration import MAPPED_RAM
from tests.support.guests.qemu import REFUSED, GuestConfig
from tests.support.guests.resume import LAYOUT, Memory, Monitored, goes_on, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout, State
from tests.support.requirements import requires
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

WAYS = [(live, channels) for live in (False, True) for channels in (1, 2, 4)]
SPLIT = Layout(ram=32 << 20, hot_mask=7, below_4g=16 << 20)
SLOW = re.compile("max.ram.below.4g")
"""What QEMU writes of RAM that is split at a few MiB."""
ARM = "qemu-system-aarch64"
ARM_RAM = 1 << 30
"""Where the machine virt has its RAM."""
FORMATS = [("qemu-stream", ()), ("mapped-ram", (MAPPED_RAM,))]

all_ways = pytest.mark.parametrize(("live", "channels"), sweep(WAYS, lambda way: way[1] == 2))
formats = pytest.mark.parametrize(("name", "capabilities"), FORMATS)


@dataclass(frozen=True)
class Saved:
    """A snapshot of a guest, and its passes afterwards."""

    result: SaveResult
    path: Path
    status: str
    passed: list[int]


SavedIn = Callable[[bool, int], Saved]


@pytest.fixture(scope="module")
def guest(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest with memory of QEMU's own."""
    with make_monitored(program, shared_shm, private_memory()) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture(scope="module")
def saved(guest: Monitored, shared_shm: Path) -> SavedIn:
    """Give a function that saves the running guest in some way, once."""
    done: dict[tuple[bool, int], Saved] = {}

    def save(live: bool, channels: int) -> Saved:
        require_live(live=live)
        if (live, channels) not in done:
            path = shared_shm / f"{live}{channels}.snap"
            done[live, channels] = save_running(guest, path, live=live, jobs=channels)
        return done[live, channels]

    return save


def save_running(guest: Monitored, path: Path, **options: Any) -> Saved:
    """Save a running guest over multifd, and look at it afterwards."""
    result = snapmig.save(guest.monitor, path, **options)
    return Saved(result, path, status(guest), tiny.wait_passes(guest, 2))


def resumes(
    program: str,
    folder: Path,
    snapshot: Path,
    state: State,
    layout: Layout = LAYOUT,
    **options: Any,
) -> bool:
    """Return True if a waiting QEMU with private memory resumes a snapshot's guest."""
    (folder / "new").mkdir()
    memory = options.pop("memory", private_memory(layout))
    with make_monitored(program, folder / "new", memory, layout, incoming=True, **options) as guest:
        guest.expected_words = SLOW if layout.below_4g else None
        snapmig.restore(snapshot, guest.monitor, jobs=2)
        counted = tiny.wait_passes(guest, 2, before=0)
    return tiny.goes_on(counted, state, layout)


@all_ways
def test_multifd_is_chosen(saved: SavedIn, live: bool, channels: int) -> None:
    """A guest with memory that nobody shares is saved over multifd, and that is not warned of."""
    result = saved(live, channels).result
    assert (result.via, result.warnings) == ("multifd", ())


@all_ways
def test_the_guest_counts_on(saved: SavedIn, live: bool, channels: int) -> None:
    """The saved guest runs, counts without a gap, and finds no page wrong."""
    found = saved(live, channels)
    assert found.status == "running"
    assert [*range(found.passed[0], found.passed[-1] + 1)] == found.passed


@all_ways
def test_every_page_is_of_one_moment(saved: SavedIn, shm: Path, live: bool, channels: int) -> None:
    """The RAM in the snapshot is possible at one moment of the guest, page for page."""
    assert ram_of(saved(live, channels).path, shm).number >= 2


@all_ways
def test_the_snapshot_is_sound(saved: SavedIn, live: bool, channels: int) -> None:
    """Every packet of the snapshot verifies."""
    assert snapmig.verify(saved(live, channels).path).problems == ()


@all_ways
def test_the_pause_is_reported(saved: SavedIn, live: bool, channels: int) -> None:
    """The pause takes some time, and no longer than the save."""
    result = saved(live, channels).result
    assert 0 < (result.pause_seconds or 0) <= result.seconds


@all_ways
@formats
def test_resumes_from_a_file_of_qemus(
    saved: SavedIn,
    program: str,
    shm: Path,
    live: bool,
    channels: int,
    name: Any,
    capabilities: Sequence[str],
) -> None:
    """Restored to a format of QEMU's, the guest is loaded by QEMU and counts on."""
    path = saved(live, channels).path
    snapmig.restore(path, shm / "file", format=name, jobs=2)
    assert goes_on(program, shm, f"file:{shm / 'file'}", ram_of(path, shm), capabilities)


@all_ways
def test_resumes_in_a_waiting_qemu(
    saved: SavedIn, program: str, shm: Path, live: bool, channels: int
) -> None:
    """A waiting QEMU gets RAM and device state, and its guest counts on."""
    path = saved(live, channels).path
    assert resumes(program, shm, path, ram_of(path, shm))


def small_ram(snapshot: Path, folder: Path, kind: str) -> State:
    """Return the position of a guest whose RAM may be in two blocks, the lower one anywhere."""
    if kind != "of two nodes":
        return ram_of(snapshot, folder)
    half = LAYOUT.ram // 2
    with snapmig.open(snapshot) as found:
        parts = [found.read(0, half, block) for block in ("low", "high")]
    (folder / "restored").write_bytes(b"".join(parts))
    return tiny.check_image(folder / "restored", LAYOUT)


def pool_for(kind: str) -> Any:
    """Return a context in which a kind of memory can be had."""
    if kind != "huge pages":
        return nullcontext()
    return filesystems.huge_pages(HUGE_PAGES)


def kinds_of(live: bool) -> list[Any]:
    """Return kinds of memory as parameters, most of them for longer runs."""
    found = []
    for kind in MEMORIES:
        marks = [] if kind == "of two nodes" and not live else [pytest.mark.sweep]
        if kind == "huge pages":
            marks.append(pytest.mark.root)
        found.append(pytest.param(kind, live, marks=marks, id=f"{kind} {'live' * live}".strip()))
    return found


@pytest.mark.parametrize(("kind", "live"), kinds_of(False) + kinds_of(True))
def test_kinds_of_memory(program: str, shm: Path, kind: str, live: bool) -> None:
    """A guest with any kind of memory is saved over multifd, counts on, and is resumed."""
    require_live(live=live)
    with pool_for(kind):
        with make_monitored(program, shm, MEMORIES[kind](shm)) as guest:
            tiny.wait_passes(guest, 2)
            saved = save_running(guest, shm / "snap", live=live, jobs=2, via="multifd")
        assert saved.passed == [*range(saved.passed[0], saved.passed[-1] + 1)]
        state = small_ram(shm / "snap", shm, kind)
        (shm / "to").mkdir()
        memory = MEMORIES[kind](shm / "to")
        assert resumes(program, shm / "to", shm / "snap", state, memory=memory)


@pytest.mark.parametrize("live", sweep([False, True], lambda _: False))
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_machines_with_memory_above_4_gib(
    program: str, shm: Path, machine: str, live: bool
) -> None:
    """A guest of either machine type, with RAM on both sides of 4 GiB, is saved and resumed."""
    require_live(live=live)
    with make_monitored(program, shm, private_memory(), SPLIT, machine=machine) as guest:
        guest.expected_words = SLOW
        tiny.wait_passes(guest, 2)
        saved = save_running(guest, shm / "snap", live=live, jobs=2)
    assert saved.result.via == "multifd"
    state = ram_of(shm / "snap", shm, SPLIT)
    assert resumes(program, shm, shm / "snap", state, SPLIT, machine=machine)


@pytest.mark.parametrize("channels", sweep([1, 2], lambda channels: channels == 2))
def test_memory_of_an_arm_guest(shm: Path, channels: int) -> None:
    """The RAM of a guest of another architecture is as QEMU itself reads it, at its addresses."""
    requires(ARM)
    (shm / "ram").write_bytes(os.urandom(9 << 20) + bytes(LAYOUT.ram - (9 << 20)))
    backend = f"memory-backend-file,id=ram,size={LAYOUT.ram},share=off,mem-path={shm / 'ram'}"
    config = GuestConfig(LAYOUT.ram, machine="virt", extra=("-cpu", "cortex-a57", "-S"))
    with Monitored(ARM, config, Memory([backend])) as guest:
        guest.expected_words = REFUSED
        before = status(guest)
        migration.save_physical(guest, shm / "read", ARM_RAM, LAYOUT.ram)
        result = snapmig.save(guest.monitor, shm / "snap", jobs=channels)
        assert (result.via, status(guest)) == ("multifd", before)
    with snapmig.open(shm / "snap") as found:
        (ram,) = (block for block in found.blocks if block.name == "ram")
        assert found.read(0, LAYOUT.ram, "ram") == (shm / "read").read_bytes()
    assert ram.pieces[0].gpa == ARM_RAM
    assert snapmig.info(shm / "snap").architecture == "aarch64"


@pytest.mark.sweep
def test_offsets_above_4_gib(program: str, tmp_path: Path) -> None:
    """Pages far behind 4 GiB in a RAM block are saved where they are."""
    size, at = 5 << 30, (9 << 29) + 4096
    mark = os.urandom(4096)
    with (tmp_path / "far").open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(mark)
    far = f"memory-backend-file,id=far,size={size},share=off,mem-path={tmp_path / 'far'}"
    memory = Memory(
        [*private_memory().backends, far],
        options=["-m", "slots=2,maxmem=8G", "-device", "pc-dimm,memdev=far"],
    )
    with make_monitored(program, tmp_path, memory) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, tmp_path / "snap", jobs=2)
    with snapmig.open(tmp_path / "snap") as found:
        assert found.read(at - 4096, 3 * 4096, "far") == bytes(4096) + mark + bytes(4096)
    assert snapmig.info(tmp_path / "snap").data_pages < LAYOUT.ram // 4096 + 300
