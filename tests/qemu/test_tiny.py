"""Facts about the tiny guest: it counts, it finds wrong pages, and QEMU itself can resume it."""

import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.guests import migration
from tests.support.guests.migration import IGNORE_SHARED, MAPPED_RAM, MULTIFD
from tests.support.guests.qemu import CUT_OFF, Guest, GuestError
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import PAGE, ImageError, Layout, State
from tests.support.guests.versions import needs_mapped_ram, require_capabilities
from tests.support.processes import wait_for

pytestmark = pytest.mark.guest

LAYOUT = Layout(ram=32 << 20)
SPLIT = Layout(ram=32 << 20, below_4g=16 << 20)
GIB_4 = 4 << 30


@pytest.fixture
def memory(shm: Path) -> Path:
    """Give a name for the file of a guest's memory, where holes are kept and reported."""
    return shm / "ram"


def make(program: str, folder: Path, layout: Layout = LAYOUT, **options: Any) -> Guest:
    """Make a tiny guest, not yet started."""
    sector = tiny.write_sector(folder, layout)
    return Guest(program, tiny.config(sector, layout, **options))


@pytest.fixture
def stopped(program: str, tmp_path: Path, memory: Path) -> Iterator[Guest]:
    """Give a guest stopped in its third pass or later."""
    with make(program, tmp_path, memory=memory) as guest:
        tiny.wait_passes(guest, 2)
        guest.stop()
        yield guest


def saved(guest: Guest, uri: str, capabilities: tuple[str, ...]) -> State:
    """Save a guest by QEMU, end it, and return its position."""
    require_capabilities(capabilities)
    migration.prepare(guest, capabilities)
    migration.save_to(guest, uri)
    assert guest.config.memory is not None
    state = tiny.check_image(guest.config.memory, LAYOUT)
    guest.quit()
    return state


def resumed(guest: Guest, uri: str, capabilities: tuple[str, ...]) -> list[int]:
    """Load a state into a waiting guest; return its next two passes."""
    migration.prepare(guest, capabilities)
    migration.load_from(guest, uri)
    return tiny.wait_passes(guest, 2, before=0)


@pytest.mark.usefixtures("program")
def test_sector_is_what_a_bios_starts() -> None:
    """A sector has 512 bytes and ends in the signature."""
    sector = tiny.build_sector(LAYOUT)
    assert (len(sector), sector[-2:]) == (512, b"\x55\xaa")


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_counts(program: str, tmp_path: Path, memory: Path, machine: str) -> None:
    """A guest counts from 1 without a gap, and its memory when stopped is as expected."""
    with make(program, tmp_path, memory=memory, machine=machine) as guest:
        counted = tiny.wait_passes(guest, 3)
        guest.stop()
        assert counted[:3] == [1, 2, 3]
        assert tiny.check_image(memory, LAYOUT).number >= 3


@pytest.mark.usefixtures("stopped")
def test_leaves_holes(memory: Path) -> None:
    """The stretch never touched takes no memory."""
    assert memory.stat().st_blocks * 512 <= LAYOUT.ram - (LAYOUT.hole_end - LAYOUT.hole_first)


def test_memory_above_4_gib(program: str, tmp_path: Path, memory: Path) -> None:
    """A guest counts over memory on both sides of the hole below 4 GiB."""
    with make(program, tmp_path, SPLIT, memory=memory) as guest:
        tiny.wait_passes(guest, 2)
        guest.stop()
        tree = migration.monitor(guest, "info mtree -f")
    tiny.check_image(memory, SPLIT)
    assert "0000000100000000-0000000100ffffff (prio 0, ram): ram @0000000001000000" in tree


def test_writes_only_hot_pages(program: str, tmp_path: Path, memory: Path) -> None:
    """With one hot page in eight, exactly these change from pass to pass."""
    layout = Layout(ram=32 << 20, hot_mask=7)
    with make(program, tmp_path, layout, memory=memory) as guest:
        tiny.wait_passes(guest, 2)
        guest.stop()
        before = np.fromfile(memory, np.uint32).reshape(-1, tiny.WORDS)
        guest.cont()
        tiny.wait_passes(guest, 2)
        guest.stop()
    tiny.check_image(memory, layout)
    after = np.fromfile(memory, np.uint32).reshape(-1, tiny.WORDS)
    changed = np.flatnonzero((before != after).any(axis=1)) * PAGE
    stamped = changed[changed >= layout.first]
    blinking = (stamped >= layout.blink_first) & (stamped < layout.hole_first)
    steady = layout.changing()
    steady = steady[(steady < layout.blink_first) | (steady >= layout.hole_first)]
    assert stamped[~blinking].tolist() == steady.tolist()


@pytest.mark.parametrize("change", ["misplaced", "stale", "not zero"])
def test_finds_a_wrong_page(stopped: Guest, memory: Path, change: str) -> None:
    """A guest and the check of an image both notice a wrong page."""
    page = 2 << 20
    ram = np.memmap(memory, np.uint32, "r+").reshape(-1, tiny.WORDS)
    if change == "misplaced":
        ram[page // PAGE] = ram[page // PAGE + 4]
    elif change == "stale":
        ram[page // PAGE, 1] -= 1
    else:
        page = LAYOUT.zero_first
        ram[page // PAGE, 0] = 1
    with pytest.raises(ImageError, match=f"1 wrong pages: {page:#x}$"):
        tiny.check_image(memory, LAYOUT)
    stopped.cont()
    with pytest.raises(GuestError, match=f"wrong word at offset 0x{page >> 12:05X}"):
        tiny.wait_passes(stopped, 2)


@pytest.mark.parametrize(
    "capabilities", [(), (MAPPED_RAM,), (MAPPED_RAM, MULTIFD)], ids=["stream", "mapped", "multifd"]
)
def test_resumes_from_a_file(
    stopped: Guest, program: str, tmp_path: Path, capabilities: tuple[str, ...]
) -> None:
    """A guest saved whole by QEMU continues in private memory."""
    uri = f"file:{tmp_path / 'state'}"
    state = saved(stopped, uri, capabilities)
    with make(program, tmp_path, incoming=True) as guest:
        assert tiny.goes_on(resumed(guest, uri, capabilities), state, LAYOUT)


def halted(guest: Guest) -> bool:
    """Stop a guest; return True if that was between two passes, else let it run on."""
    guest.stop()
    if "HLT=1" in migration.monitor(guest, "info registers"):
        return True
    guest.cont()
    return False


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_resumes_from_a_halt(program: str, tmp_path: Path, memory: Path, machine: str) -> None:
    """A guest saved while it waits for its timer is woken by that of another QEMU."""
    uri = f"file:{tmp_path / 'state'}"
    with make(program, tmp_path, memory=memory, machine=machine) as guest:
        tiny.wait_passes(guest, 2)
        wait_for(lambda: halted(guest))
        state = saved(guest, uri, ())
    with make(program, tmp_path, incoming=True, machine=machine) as guest:
        assert tiny.goes_on(resumed(guest, uri, ()), state, LAYOUT)


def test_resumes_from_a_pipe(stopped: Guest, program: str, tmp_path: Path) -> None:
    """A guest saved and loaded through a program continues."""
    path = tmp_path / "state"
    state = saved(stopped, f"exec:cat > {path}", ())
    with make(program, tmp_path, incoming=True) as guest:
        assert tiny.goes_on(resumed(guest, f"exec:cat {path}", ()), state, LAYOUT)


def test_resumes_from_device_state_and_memory(
    stopped: Guest, program: str, tmp_path: Path, memory: Path
) -> None:
    """A guest continues from its device state and a copy of its memory file."""
    uri, copy = f"file:{tmp_path / 'state'}", memory.with_name("copy")
    state = saved(stopped, uri, (IGNORE_SHARED,))
    shutil.copyfile(memory, copy)
    with make(program, tmp_path, memory=copy, incoming=True) as guest:
        assert tiny.goes_on(resumed(guest, uri, (IGNORE_SHARED,)), state, LAYOUT)


@pytest.mark.parametrize("capabilities", [(), (MAPPED_RAM,)], ids=["stream", "mapped"])
def test_resumes_from_a_live_save(
    program: str, tmp_path: Path, memory: Path, capabilities: tuple[str, ...]
) -> None:
    """A guest saved while running continues with every page as at the end of the save."""
    require_capabilities(capabilities)
    uri, layout = f"file:{tmp_path / 'state'}", Layout(ram=32 << 20, hot_mask=7)
    with make(program, tmp_path, layout, memory=memory) as guest:
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, capabilities)
        migration.save_to(guest, uri)
        state = tiny.check_image(memory, layout)
    with make(program, tmp_path, layout, incoming=True) as guest:
        assert tiny.goes_on(resumed(guest, uri, capabilities), state, layout)


def test_state_without_its_memory_is_found_out(
    stopped: Guest, program: str, tmp_path: Path, memory: Path
) -> None:
    """A guest resumed with a page of its memory lost notices it: resuming is a proof."""
    uri, copy = f"file:{tmp_path / 'state'}", memory.with_name("copy")
    saved(stopped, uri, (IGNORE_SHARED,))
    shutil.copyfile(memory, copy)
    with copy.open("r+b") as stream:
        stream.seek(LAYOUT.ram - PAGE)
        stream.write(bytes(PAGE))
    with (
        make(program, tmp_path, memory=copy, incoming=True) as guest,
        pytest.raises(GuestError, match="wrong word at offset 0x01FFF000"),
    ):
        resumed(guest, uri, (IGNORE_SHARED,))


def test_load_that_fails_says_why(stopped: Guest, program: str, tmp_path: Path) -> None:
    """An error of QEMU while it loads is reported, though QEMU has ended."""
    uri = f"file:{tmp_path / 'state'}"
    saved(stopped, uri, (MAPPED_RAM,))
    with make(program, tmp_path, incoming=True) as guest:
        guest.expected_words = re.compile("Capability mapped-ram is off|load of migration failed")
        with pytest.raises(migration.MigrationError, match="Capability mapped-ram is off"):
            resumed(guest, uri, ())


@needs_mapped_ram
def test_save_that_is_cancelled(program: str, tmp_path: Path) -> None:
    """A cancelled save leaves a guest that continues counting and can be saved again."""
    uri = f"file:{tmp_path / 'state'}"
    with make(program, tmp_path) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, (MAPPED_RAM,), max_bandwidth=2 << 20)
        migration.cancel(guest, uri, 0.3)
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, (MAPPED_RAM,))
        migration.save_to(guest, uri)


def loads(core: bytes) -> list[tuple[int, bytes]]:
    """Return the physical address and the contents of each range of a 64-bit ELF core."""
    (start,) = struct.unpack_from("<Q", core, 32)
    size, number = struct.unpack_from("<HH", core, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", core, start + size * i) for i in range(number)]
    return [(at, core[o : o + n]) for kind, _, o, _, at, n, _, _ in headers if kind == 1]


@pytest.mark.parametrize("paging", [False, True])
def test_core_holds_the_memory(program: str, tmp_path: Path, memory: Path, paging: bool) -> None:
    """An ELF core has every byte of RAM at its physical address, below and above 4 GiB."""
    core = tmp_path / "core"
    with make(program, tmp_path, SPLIT, memory=memory) as guest:
        tiny.wait_passes(guest, 2)
        guest.stop()
        migration.dump_memory(guest, core, paging=paging)
    tiny.check_image(memory, SPLIT)
    found = dict(loads(core.read_bytes()))
    assert found[0] + found[GIB_4] == memory.read_bytes()


def test_a_guest_that_rests_counts_on_when_it_is_asked(program: str, tmp_path: Path) -> None:
    """Its processes are stopped until a test wants to know of it, and nothing is lost."""
    with make(program, tmp_path) as guest:
        before = tiny.wait_passes(guest, 1)
        stat = Path(f"/proc/{guest.pid}/stat")
        guest.rest()
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        after = tiny.wait_passes(guest, 2)
    assert after[-1] > before[-1]
