"""Facts about files written by a real QEMU: saved, restored, and loaded by QEMU again."""

import filecmp
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import SnapmigError
from tests.support.guests import migration
from tests.support.guests.migration import IGNORE_SHARED, MAPPED_RAM, MULTIFD
from tests.support.guests.qemu import CUT_OFF, Guest
from tests.support.guests.resume import LAYOUT, goes_on, make
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State
from tests.support.guests.versions import needs_file, require_capabilities
from tests.support.outcome import Outcome
from tests.support.processes import wait_for
from tests.support.qemu_files import footer
from tests.support.requirements import requires
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

JOBS = (1, 2, 4)
BY_ALL_JOBS = ("mapped-ram", "multifd", "file", "exec", "elf")
ESSENTIAL = ("multifd", "file", "libvirt-raw", "libvirt raw", "elf")
"""What the short run has; the other forms are gone through by the long one."""
MAPPED = (MAPPED_RAM,)
CHANNELS = (MAPPED_RAM, MULTIFD)
LIVE = {"max_bandwidth": 60 << 20, "downtime_limit": 200}
"""Slow enough for some passes of the guest while it is saved."""
XML = b"<domain type='qemu'><name>tiny</name></domain>\0"
COOKIE = b"<qemusave/>\0"
PADDING = 1 << 16
EOS, FLUSH = struct.pack(">Q", 0x10), struct.pack(">Q", 0x200)


def libvirt_head(kind: int) -> bytes:
    """Return libvirt's bytes before QEMU's stream."""
    size = len(XML) + len(COOKIE) + PADDING
    header = struct.pack("<16s5I56x", b"LibvirtQemudSave", 2, size, 1, kind, len(XML))
    return header + XML + COOKIE + bytes(PADDING)


LIBVIRT_RAW, LIBVIRT_SPARSE, LIBVIRT_ZSTD = (libvirt_head(kind) for kind in (0, 6, 5))


@dataclass(frozen=True)
class Form:
    """A way for QEMU to save a guest: capabilities, place, bytes before the stream, name."""

    format: str
    capabilities: tuple[str, ...] = ()
    uri: str = "file:{}"
    head: bytes = b""
    live: bool = False


FORMS = {
    "mapped-ram": Form("mapped-ram", MAPPED),
    "multifd": Form("mapped-ram", CHANNELS),
    "file": Form("qemu-stream"),
    "exec": Form("qemu-stream", uri="exec:cat > {}"),
    "live-mapped-ram": Form("mapped-ram", MAPPED, live=True),
    "live-multifd": Form("mapped-ram", CHANNELS, live=True),
    "live-file": Form("qemu-stream", live=True),
    "libvirt-sparse": Form("libvirt", CHANNELS, "file:{},offset=" + str(len(LIBVIRT_SPARSE)),
                           LIBVIRT_SPARSE),
    "libvirt-raw": Form("libvirt", (), "exec:cat >> {}", LIBVIRT_RAW),
    "libvirt-zstd": Form("libvirt", (), "exec:zstd -1 -q >> {}", LIBVIRT_ZSTD),
    "elf": Form("elf"),
}  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """A file written by QEMU, and the guest's memory and state at that moment."""

    path: Path
    ram: Path
    state: State


@pytest.fixture(scope="module")
def folder(shared_shm: Path) -> Path:
    """Give the folder of all files."""
    return shared_shm


@pytest.fixture(scope="module")
def guest(program: str, folder: Path) -> Iterator[Guest]:
    """Give a running guest."""
    with make(program, folder, memory=folder / "ram") as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture(scope="module")
def saved(guest: Guest, folder: Path) -> Callable[[str], Saved]:
    """Give a function that has QEMU save the guest in a form, once."""
    done: dict[str, Saved] = {}

    def save(name: str) -> Saved:
        if name not in done:
            done[name] = save_by_qemu(guest, folder / name, FORMS[name])
        return done[name]

    return save


def save_by_qemu(guest: Guest, path: Path, form: Form) -> Saved:
    """Have QEMU save a guest, then let it continue."""
    require_capabilities(form.capabilities)
    path.write_bytes(form.head)
    migration.prepare(guest, form.capabilities, **(LIVE if form.live else {}))
    tiny.wait_passes(guest, 1)
    if not form.live:
        guest.stop()
    if form.format == "elf":
        migration.dump_memory(guest, path)
    else:
        migration.save_to(guest, form.uri.format(path))
    ram = Path(shutil.copyfile(guest.config.memory or "", path.with_name(f"{path.name}.ram")))
    settle(guest, form)
    return Saved(path, ram, tiny.check_image(ram, LAYOUT))


def settle(guest: Guest, form: Form) -> None:
    """Let a saved guest continue, with no capability of its save."""
    off = [{"capability": name, "state": False} for name in reversed(form.capabilities)]
    guest.execute("migrate-set-capabilities", capabilities=off)
    guest.cont()


@pytest.fixture(scope="module")
def snapshot(saved: Callable[[str], Saved], folder: Path) -> Callable[[str, int], Path]:
    """Give a function that makes a snapshot of a form's file by some jobs, once."""
    done: set[Path] = set()

    def save(name: str, jobs: int) -> Path:
        path = folder / f"{name}.{jobs}.snap"
        if path not in done:
            snapmig.save(saved(name).path, path, jobs=jobs)
            done.add(path)
        return path

    return save


SnapshotOf = Callable[[str, int], Path]
SavedAs = Callable[[str], Saved]

all_forms = pytest.mark.parametrize("form", sweep(FORMS, lambda form: form in ESSENTIAL))


def with_jobs(ways: Iterable[str]) -> list[Any]:
    """Return ways to save with 2 jobs, and those of a paused guest with 1 and 4 too."""
    found = [(way, jobs) for way in ways for jobs in JOBS if jobs == 2 or way in BY_ALL_JOBS]
    return sweep(found, lambda way: way[1] == 2 and way[0] in ESSENTIAL)


@all_forms
def test_the_source_is_named(snapshot: SnapshotOf, form: str) -> None:
    """A snapshot names the format of its source, found by content alone."""
    assert FORMS[form].format == snapmig.info(snapshot(form, 2)).source


@pytest.mark.parametrize(("form", "jobs"), with_jobs(FORMS))
def test_block_is_the_memory(
    snapshot: SnapshotOf, saved: SavedAs, shm: Path, form: str, jobs: int
) -> None:
    """The block of the guest's RAM is its memory at the moment of the save."""
    block = max(snapmig.info(snapshot(form, jobs)).blocks, key=lambda block: block.size).name
    snapmig.restore(snapshot(form, jobs), shm / "ram", block=block, jobs=jobs)
    assert filecmp.cmp(saved(form).ram, shm / "ram", shallow=False)


@pytest.mark.parametrize(
    ("form", "jobs"), with_jobs(["mapped-ram", "multifd", "libvirt-sparse", "elf"])
)
def test_restored_as_it_was(
    snapshot: SnapshotOf, saved: SavedAs, shm: Path, form: str, jobs: int
) -> None:
    """A file of a paused guest with pages at fixed places is restored byte for byte."""
    snapmig.restore(snapshot(form, jobs), shm / "again", jobs=jobs)
    assert filecmp.cmp(saved(form).path, shm / "again", shallow=False)


@pytest.mark.parametrize("form", ["mapped-ram", "multifd", "libvirt-sparse"])
def test_restored_with_holes(snapshot: SnapshotOf, saved: SavedAs, shm: Path, form: str) -> None:
    """A restored mapped-ram file takes no more space than QEMU's own."""
    snapmig.restore(snapshot(form, 2), shm / "again", jobs=2)
    assert (shm / "again").stat().st_blocks <= saved(form).path.stat().st_blocks


LOADS = {
    "mapped-ram": ("mapped-ram", MAPPED, "file:{}"),
    "mapped-ram by multifd": ("mapped-ram", CHANNELS, "file:{}"),
    "multifd": ("multifd", CHANNELS, "file:{}"),
    "multifd without": ("multifd", MAPPED, "file:{}"),
    "file": ("file", (), "file:{}"),
    "exec": ("exec", (), "exec:cat {}"),
    "live mapped-ram": ("live-mapped-ram", MAPPED, "file:{}"),
    "live multifd": ("live-multifd", CHANNELS, "file:{}"),
    "live file": ("live-file", (), "file:{}"),
    "libvirt sparse": ("libvirt-sparse", CHANNELS, FORMS["libvirt-sparse"].uri),
    "libvirt raw": ("libvirt-raw", (), f"file:{{}},offset={len(LIBVIRT_RAW)}"),
    "libvirt zstd": ("libvirt-zstd", (), f"file:{{}},offset={len(LIBVIRT_ZSTD)}"),
}


@pytest.mark.parametrize(("load", "jobs"), with_jobs(LOADS))
def test_qemu_resumes_it(
    snapshot: SnapshotOf, saved: SavedAs, program: str, shm: Path, load: str, jobs: int
) -> None:
    """QEMU loads a file restored in the form it was saved in, and the guest continues counting."""
    form, capabilities, uri = LOADS[load]
    snapmig.restore(snapshot(form, jobs), shm / "again", jobs=jobs)
    place = uri.format(shm / "again")
    assert goes_on(program, shm, place, saved(form).state, capabilities)


CROSSED = [
    ("file", "mapped-ram", MAPPED),
    ("file", "mapped-ram", CHANNELS),
    ("exec", "mapped-ram", CHANNELS),
    ("live-file", "mapped-ram", MAPPED),
    ("mapped-ram", "qemu-stream", ()),
    ("multifd", "qemu-stream", ()),
    ("live-mapped-ram", "qemu-stream", ()),
    ("libvirt-raw", "mapped-ram", CHANNELS),
    ("libvirt-raw", "qemu-stream", ()),
    ("libvirt-sparse", "mapped-ram", CHANNELS),
    ("libvirt-sparse", "qemu-stream", ()),
]


@pytest.mark.parametrize(
    ("form", "other", "capabilities"), sweep(CROSSED, lambda way: way[0] in ESSENTIAL)
)
def test_qemu_resumes_it_in_another_form(
    snapshot: SnapshotOf,
    saved: SavedAs,
    program: str,
    shm: Path,
    form: str,
    other: str,
    capabilities: tuple[str, ...],
) -> None:
    """A snapshot of one form of file is restored as another one, and QEMU loads it."""
    snapmig.restore(snapshot(form, 2), shm / "again", format=other, jobs=2)
    assert goes_on(program, shm, f"file:{shm / 'again'}", saved(form).state, capabilities)


def test_libvirt_head_stays(snapshot: SnapshotOf, shm: Path) -> None:
    """Header, XML and cookie of a libvirt image are restored as they were."""
    snapmig.restore(snapshot("libvirt-raw", 2), shm / "again", jobs=2)
    assert (shm / "again").read_bytes().startswith(LIBVIRT_RAW)


def test_raw_from_any_form(snapshot: SnapshotOf, saved: SavedAs, shm: Path) -> None:
    """A mapped-ram file's blocks follow one another in a raw image, RAM first."""
    snapmig.restore(snapshot("multifd", 2), shm / "again", format="raw")
    assert saved("multifd").ram.read_bytes() == (shm / "again").read_bytes()[: LAYOUT.ram]


def test_readelf_agrees(snapshot: SnapshotOf, saved: SavedAs, shm: Path) -> None:
    """Headers and notes of a restored core read as those of QEMU's own."""
    requires("readelf")
    snapmig.restore(snapshot("elf", 2), shm / "again", jobs=2)
    ours, theirs = (
        subprocess.check_output(["readelf", "--wide", "-h", "-l", "-n", path], text=True)
        for path in (shm / "again", saved("elf").path)
    )
    assert theirs == ours


def test_gdb_reads_memory_in_a_core(snapshot: SnapshotOf, shm: Path) -> None:
    """The debugger sees a page's stamp, its own address, in a restored core."""
    requires("gdb")
    snapmig.restore(snapshot("elf", 2), shm / "again", jobs=2)
    page = 0x301000  # written in the first pass only
    shown = subprocess.check_output(
        ["gdb", "--batch", "-nx", "-ex", f"x/2xw {page:#x}", "-c", shm / "again"],
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert f"{page:#x}:\t{page:#010x}\t{1:#010x}" == shown.splitlines()[-1]


def test_device_state_alone_has_no_ram(guest: Guest, folder: Path) -> None:
    """Shared RAM left out of a stream by QEMU is not in the snapshot as zeros."""
    form = Form("qemu-stream", (IGNORE_SHARED,))
    alone = save_by_qemu(guest, folder / "alone", form)
    snapmig.save(alone.path, folder / "alone.snap")
    assert "ram" not in [block.name for block in snapmig.info(folder / "alone.snap").blocks]


def ram_section(content: bytes) -> int:
    """Return the number of the section with RAM."""
    at = content.index(b"\3ram" + struct.pack(">II", 0, 4))
    return int.from_bytes(content[at - 4 : at])


@needs_file
def test_flushes_of_qemu_8_1(saved: SavedAs, program: str, folder: Path, shm: Path) -> None:
    """A stream with flushes among its pages is restored with those after the list, and loaded."""
    made = saved("file")
    content = made.path.read_bytes()
    section = ram_section(content)
    end = content.index(EOS + footer(section))
    after = content.index(b"\2" + footer(section)[1:], end) + 5
    flushed = content[:end] + FLUSH + content[end:after] + FLUSH + content[after:]
    (shm / "flushed").write_bytes(flushed)
    snapmig.save(shm / "flushed", shm / "snap")
    snapmig.restore(shm / "snap", shm / "again")
    place = f"file:{shm / 'again'}"
    assert (shm / "again").read_bytes().startswith(flushed[: end + 8])
    assert goes_on(program, folder, place, made.state)


@pytest.fixture(scope="module")
def background(program: str, folder: Path) -> Path:
    """Give the snapshot of a file made by QEMU while its guest ran and wrote."""
    requires("root")  # or the right to use userfaultfd
    with make(program, folder) as guest:
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, ["background-snapshot"])
        migration.save_to(guest, f"exec:cat > {folder / 'background'}")
        tiny.wait_passes(guest, 1)
    snapmig.save(folder / "background", folder / "background.snap")
    return folder / "background.snap"


def test_background_snapshot_gets_an_end_of_ram(background: Path, shm: Path) -> None:
    """QEMU leaves out the section that ends RAM in other streams; a restored one has it."""
    snapmig.restore(background, shm / "again")
    before = background.with_suffix("").read_bytes()
    section = footer(ram_section(before))
    end = b"\3" + section[1:] + EOS + section
    assert [end in before, end in (shm / "again").read_bytes()] == [False, True]


@pytest.mark.parametrize(("form", "capabilities"), [("qemu-stream", ()), ("mapped-ram", MAPPED)])
def test_qemu_resumes_a_background_snapshot(
    background: Path, program: str, shm: Path, form: str, capabilities: tuple[str, ...]
) -> None:
    """A background snapshot is of one moment, and QEMU resumes the guest of that moment."""
    snapmig.restore(background, shm / "ram", block="ram")
    state = tiny.check_image(shm / "ram", LAYOUT)
    snapmig.restore(background, shm / "again", format=form)
    assert goes_on(program, shm, f"file:{shm / 'again'}", state, capabilities)


VIRTIO_MEM = (
    *("-m", f"{LAYOUT.ram >> 20}M,maxmem={(LAYOUT.ram >> 20) + 128}M"),
    *("-object", "memory-backend-ram,id=plug,size=128M"),
    *("-device", "virtio-mem-pci,memdev=plug,requested-size=0"),
)


@pytest.mark.parametrize(("form", "capabilities"), [("qemu-stream", ()), ("mapped-ram", MAPPED)])
def test_virtio_mem_with_nothing_plugged(
    program: str, shm: Path, form: str, capabilities: tuple[str, ...]
) -> None:
    """A block without any page in the stream stays a block; QEMU would not load without it."""
    with make(program, shm, memory=shm / "ram", extra=VIRTIO_MEM) as guest:
        tiny.wait_passes(guest, 1)
        guest.stop()
        migration.prepare(guest)
        migration.save_to(guest, f"file:{shm / 'file'}")
        state = tiny.check_image(shm / "ram", LAYOUT)
    snapmig.save(shm / "file", shm / "snap")
    snapmig.restore(shm / "snap", shm / "again", format=form)
    place = f"file:{shm / 'again'}"
    assert goes_on(program, shm, place, state, capabilities, extra=VIRTIO_MEM)


@pytest.fixture(scope="module")
def cut_short(program: str, folder: Path) -> Callable[[str, str], Path]:
    """Give a function that has QEMU begin a save and interrupts it, once for each way."""
    done: dict[tuple[str, str], Path] = {}

    def begin(name: str, way: str) -> Path:
        if (name, way) not in done:
            done[name, way] = folder / f"{name}.{way}"
            cut_save(program, folder, done[name, way], FORMS[name], way)
        return done[name, way]

    return begin


def cut_save(program: str, folder: Path, path: Path, form: Form, way: str) -> None:
    """Have QEMU begin a slow save, and cancel that or kill QEMU in the middle."""
    require_capabilities(form.capabilities)
    with make(program, folder) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 1)
        migration.prepare(guest, form.capabilities, max_bandwidth=4 << 20)
        guest.execute("migrate", uri=migration.writable(guest, f"file:{path}"))
        wait_for(lambda: sent_bytes(guest) >= 2 << 20)
        if way == "killed":
            os.kill(guest.pid, signal.SIGKILL)
            return
        guest.execute("migrate_cancel")
        wait_for(lambda: guest.execute("query-migrate")["status"] == "cancelled")


def sent_bytes(guest: Guest) -> int:
    """Return what QEMU has sent of a guest so far."""
    return int(guest.execute("query-migrate").get("ram", {}).get("transferred", 0))


@pytest.mark.parametrize("way", ["killed", "cancelled"])
@pytest.mark.parametrize(
    "form", sweep(["mapped-ram", "multifd", "file"], lambda form: form in ESSENTIAL)
)
def test_cut_short_file_is_refused(
    cut_short: Callable[[str, str], Path],
    cli: Callable[..., Outcome],
    shm: Path,
    form: str,
    way: str,
) -> None:
    """A file of an unfinished save is refused for that reason, and nothing is made."""
    path = cut_short(form, way)
    outcome = cli("save", path, shm / "snap")
    told = "the save was cut short" in outcome.err and str(path) in outcome.err
    outcome.fails(1, out="")
    assert told
    assert [*shm.iterdir()] == []


@pytest.mark.parametrize(
    "form",
    sweep(["mapped-ram", "multifd", "file", "libvirt-sparse"], lambda form: form in ESSENTIAL),
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(saved: SavedAs, shm: Path, form: str, share: float) -> None:
    """A complete file with its end lost is refused."""
    shutil.copyfile(saved(form).path, shm / "cut")
    os.truncate(shm / "cut", int(saved(form).path.stat().st_size * share))
    with pytest.raises(SnapmigError, match=r"cut short|file ends|no RAM section"):
        snapmig.save(shm / "cut", shm / "snap")
