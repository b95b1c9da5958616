"""Facts about running guests: saved through QEMU's monitor, and resumed."""

import itertools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.operations.save import SaveResult
from tests.support import filesystems
from tests.support import program as snapmig_program
from tests.support.guests import migration
from tests.support.guests.qemu import CUT_OFF, REFUSED, Guest
from tests.support.guests.resume import (
    LAYOUT,
    Memory,
    Monitored,
    Printed,
    file_memory,
    goes_on,
    make,
    make_monitored,
)
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout, State
from tests.support.guests.versions import needs_mapped_ram, require_qemu
from tests.support.outcome import Outcome
from tests.support.processes import caught, wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

WAYS = [(live, jobs) for live in (False, True) for jobs in (1, 2, 4)]
UNWRITTEN = re.compile(f"{CUT_OFF.pattern}|No space left on device|has already quit")
"""What QEMU writes where it can't write a guest to the end."""
LARGE = Layout(ram=128 << 20)
"""All of it is written in each pass, so that the second look of a live save takes long too."""

all_ways = pytest.mark.parametrize(("live", "jobs"), sweep(WAYS, lambda way: way[1] == 2))
only_live = pytest.mark.parametrize("live", sweep([False, True], bool))
"""The other ways to save are for ``make test-more``."""


@dataclass(frozen=True)
class Saved:
    """A snapshot of a running guest, and observations around its making."""

    result: SaveResult
    path: Path
    allocated: tuple[int, int]
    status: str
    passed: list[int]
    folder: Path


SavedIn = Callable[[bool, int], Saved]


@pytest.fixture(scope="module")
def guest(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest in a shared file."""
    memory = file_memory(shared_shm / "ram")
    with make_monitored(program, shared_shm, memory) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture(scope="module")
def saved(guest: Monitored, shared_shm: Path) -> SavedIn:
    """Give a function that saves the running guest in some way, once."""
    done: dict[tuple[bool, int], Saved] = {}

    def save(live: bool, jobs: int) -> Saved:
        if (live, jobs) not in done:
            path = shared_shm / f"{live}{jobs}.snap"
            done[live, jobs] = save_running(guest, path, shared_shm / "ram", live, jobs)
        return done[live, jobs]

    return save


def save_running(guest: Monitored, path: Path, ram: Path, live: bool, jobs: int) -> Saved:
    """Save a running guest, and inspect it before and afterwards."""
    before = ram.stat().st_blocks
    result = snapmig.save(guest.monitor, path, live=live, jobs=jobs)
    after = ram.stat().st_blocks
    status = guest.execute("query-status")["status"]
    passed = tiny.wait_passes(guest, 2)
    found = Saved(result, path, (before, after), status, passed, guest.folder)
    guest.rest()
    return found


def stood_at(path: Path, folder: Path, layout: Layout = LAYOUT) -> State:
    """Return the position of a snapshot's guest, after checking all pages of its RAM."""
    snapmig.restore(path, folder / "restored", format="raw", force=True)
    return tiny.check_image(folder / "restored", layout)


@all_ways
def test_guest_runs_afterwards(saved: SavedIn, live: bool, jobs: int) -> None:
    """A guest running before the save runs after it."""
    assert saved(live, jobs).status == "running"


@all_ways
def test_guest_counts_on(saved: SavedIn, live: bool, jobs: int) -> None:
    """The saved guest continues counting without a gap, and finds no page wrong."""
    passed = saved(live, jobs).passed
    assert [*range(passed[0], passed[-1] + 1)] == passed


@all_ways
def test_memory_does_not_grow(saved: SavedIn, live: bool, jobs: int) -> None:
    """A save allocates nothing in the guest's memory file."""
    before, after = saved(live, jobs).allocated
    assert before == after


@all_ways
def test_pause_is_reported(saved: SavedIn, live: bool, jobs: int) -> None:
    """The pause takes some time, and no longer than the save."""
    result = saved(live, jobs).result
    assert 0 < (result.pause_seconds or 0) <= result.seconds


@all_ways
def test_snapshot_is_sound(saved: SavedIn, live: bool, jobs: int) -> None:
    """Every packet of the snapshot verifies."""
    assert snapmig.verify(saved(live, jobs).path).problems == ()


@all_ways
def test_every_page_is_of_one_moment(saved: SavedIn, shm: Path, live: bool, jobs: int) -> None:
    """The RAM in the snapshot is possible at one moment of the guest, page for page."""
    assert stood_at(saved(live, jobs).path, shm).number >= 2


@only_live
def test_what_changed_since_a_parent_is_of_one_moment(
    guest: Monitored, saved: SavedIn, shared_shm: Path, shm: Path, live: bool
) -> None:
    """A running guest saved on an older snapshot is whole, and not all of it is stored again."""
    path = shared_shm / f"child{live}.snap"
    parent = saved(False, 1).path
    result = snapmig.save(guest.monitor, path, live=live, parent=parent)

    assert (stood_at(path, shm).number >= 2, result.same_pages > 0) == (True, True)


@all_ways
def test_resumes_in_a_waiting_qemu(
    saved: SavedIn, program: str, shm: Path, live: bool, jobs: int
) -> None:
    """A waiting QEMU gets RAM and device state, and its guest continues counting."""
    path = saved(live, jobs).path
    with make_monitored(program, shm, file_memory(shm / "ram"), incoming=True) as guest:
        snapmig.restore(path, guest.monitor, jobs=jobs)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, stood_at(path, shm), LAYOUT)


@pytest.mark.parametrize(
    ("name", "live", "jobs"),
    sweep(
        [(name, live, 2) for name in ("qemu-stream", "libvirt") for live in (False, True)],
        lambda each: each in [("qemu-stream", True, 2), ("libvirt", False, 2)],
    ),
)
def test_resumes_from_a_stream_of_all(
    saved: SavedIn, program: str, shm: Path, live: bool, jobs: int, name: str
) -> None:
    """Shared RAM and the device state without it become one stream, and QEMU loads it."""
    path, head = saved(live, jobs).path, 0
    options = {}
    if name == "libvirt":
        (shm / "xml").write_bytes(b"<domain type='qemu'/>\n")
        options = {"domain_xml": shm / "xml"}
        head = 92 + len((shm / "xml").read_bytes()) + 1 + (64 << 10)
    snapmig.restore(path, shm / "stream", format=name, jobs=jobs, **options)
    uri = f"file:{shm / 'stream'},offset={head}"
    assert goes_on(program, shm, uri, stood_at(path, shm))


def test_shared_memory_does_not_become_mapped_ram(
    saved: SavedIn, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """A format impossible from shared memory is refused with the reason and the alternatives."""
    outcome = cli("restore", saved(False, 2).path, shm / "new", "--format", "mapped-ram")
    told = "restore it to qemu-stream or libvirt" in outcome.err
    outcome.fails(2)
    assert told
    assert [*shm.iterdir()] == []


def status(guest: Guest) -> str:
    """Return the run state of a guest."""
    return str(guest.execute("query-status")["status"])


def tell(guest: Guest, commands: Sequence[str]) -> None:
    """Send commands to a guest's monitor, each after any load begun earlier is over."""
    for command in commands:
        if command == "cont":
            wait_for(lambda: status(guest) != "inmigrate")
        migration.monitor(guest, command)


@pytest.mark.parametrize(("live", "jobs"), [(False, 2), (True, 2)])
def test_resumes_by_the_printed_command(saved: SavedIn, shm: Path, live: bool, jobs: int) -> None:
    """The command and the monitor's commands printed by a restore resume the guest."""
    snapshot = saved(live, jobs)
    made = snapmig.restore(snapshot.path, shm / "new", for_qemu=True, jobs=jobs)
    with Printed(made.qemu_arguments or (), snapshot.folder) as guest:
        tell(guest, made.monitor_commands or ())
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, stood_at(snapshot.path, shm), LAYOUT)


def split_memory(folder: Path, *, same: bool = False) -> Memory:
    """
    Return memory in two files, of two nodes, one after the other in the guest.

    :param same: without names, in one directory, like libvirt with huge pages
    """
    half = LAYOUT.ram // 2
    kind = f"memory-backend-file,size={half},share=on"
    low, high = (folder, folder) if same else (folder / "low", folder / "high")
    return Memory(
        [f"{kind},id=low,mem-path={low}", f"{kind},id=high,mem-path={high}"],
        "",
        ["-numa", "node,memdev=low", "-numa", "node,memdev=high"],
    )


def dimm_memory(folder: Path) -> Memory:
    """Return memory in a file, and a second file as a plugged-in module."""
    more = f"memory-backend-file,id=more,size=16M,share=on,mem-path={folder / 'more'}"
    return Memory(
        [*file_memory(folder / "ram").backends, more],
        ",memory-backend=ram",
        ["-m", "slots=2,maxmem=256M", "-device", "pc-dimm,memdev=more"],
    )


def described_memory(folder: Path) -> Memory:
    """Return memory in a file, described in JSON as by libvirt."""
    facts = {
        "qom-type": "memory-backend-file",
        "id": "ram",
        "size": LAYOUT.ram,
        "share": True,
        "mem-path": str(folder / "ram"),
    }
    return Memory([json.dumps(facts)])


def offset_memory(folder: Path) -> Memory:
    """Return memory that starts in the middle of a file."""
    require_qemu("8.1")
    start = 16 << 20
    with (folder / "ram").open("wb") as file:
        file.truncate(start + LAYOUT.ram)
    backend = file_memory(folder / "ram").backends[0]
    return Memory([f"{backend},offset={start}"])


MEMORIES: dict[str, Callable[[Path], Memory]] = {
    "in a file": lambda folder: file_memory(folder / "ram"),
    "in a file of a directory": lambda folder: file_memory(folder),
    "in a memfd": lambda _: Memory([f"memory-backend-memfd,id=ram,size={LAYOUT.ram},share=on"]),
    "in two files": split_memory,
    "in two files of a directory": lambda folder: split_memory(folder, same=True),
    "in a file and a module": dimm_memory,
    "said in JSON": described_memory,
    "at an offset": offset_memory,
    "anonymous": lambda _: Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"]),
}
MEMORIES["two private"] = lambda _: Memory(
    [f"memory-backend-ram,id={name},size={LAYOUT.ram // 2}" for name in ("low", "high")],
    "",
    ["-numa", "node,memdev=low", "-numa", "node,memdev=high"],
)
SHARED = (
    "in a file",
    "in a file of a directory",
    "in two files",
    "in two files of a directory",
    "in a file and a module",
    "said in JSON",
    "at an offset",
)
UNSHARED = ("in a memfd", "anonymous")
ESSENTIAL = ("in a file", "in two files of a directory", "anonymous")


def kinds(all_kinds: Iterable[str]) -> list[Any]:
    """Return kinds of memory as parameters, some of them for longer runs."""
    return sweep(all_kinds, lambda kind: kind in ESSENTIAL)


@dataclass(frozen=True)
class SavedKind:
    """A snapshot of a guest with some kind of memory."""

    result: SaveResult
    path: Path
    folder: Path
    """Where that guest had its sockets."""
    left: list[str]


@pytest.fixture(scope="module")
def kind_saved(program: str, shared_shm: Path) -> Callable[[str], SavedKind]:
    """Give a function that saves a guest with some kind of memory, once."""
    done: dict[str, SavedKind] = {}

    def save(kind: str) -> SavedKind:
        if kind not in done:
            folder = shared_shm / kind.replace(" ", "-")
            folder.mkdir(exist_ok=True)
            done[kind] = save_kind(program, folder, kind)
        return done[kind]

    return save


KindSaved = Callable[[str], SavedKind]


def save_kind(
    program: str, folder: Path, kind: str, *, machine: str = "q35", **options: Any
) -> SavedKind:
    """Save a guest with some kind of memory, which then continues counting."""
    memory = MEMORIES[kind](folder)
    with make_monitored(program, folder, memory, machine=machine) as guest:
        tiny.wait_passes(guest, 2)
        before = {item.name for item in folder.iterdir()}
        result = snapmig.save(guest.monitor, folder / "snap", jobs=2, **options)
        left = [item.name for item in folder.iterdir() if item.name not in before]
        tiny.wait_passes(guest, 2)
        return SavedKind(result, folder / "snap", guest.folder, left)


def ram_of(snapshot: Path, folder: Path) -> State:
    """Return the position of a snapshot's guest, from its first block."""
    snapmig.restore(snapshot, folder / "restored", format="raw")
    os.truncate(folder / "restored", LAYOUT.ram)  # modules and firmware follow it
    return tiny.check_image(folder / "restored", LAYOUT)


def resumes(program: str, folder: Path, kind: str, snapshot: Path, machine: str = "q35") -> bool:
    """Return True if a guest continues counting in a new QEMU with some kind of memory."""
    (folder / "new").mkdir()
    memory = MEMORIES[kind](folder / "new")
    with make_monitored(program, folder, memory, machine=machine, incoming=True) as guest:
        snapmig.restore(snapshot, guest.monitor, jobs=2)
        counted = tiny.wait_passes(guest, 2, before=0)
    return tiny.goes_on(counted, ram_of(snapshot, folder), LAYOUT)


@pytest.mark.parametrize("kind", kinds(MEMORIES))
def test_kinds_of_memory(kind_saved: KindSaved, program: str, shm: Path, kind: str) -> None:
    """A guest with any kind of memory is saved and resumed, and continues counting."""
    assert resumes(program, shm, kind, kind_saved(kind).path)


@pytest.mark.parametrize("kind", kinds(["in a file", "anonymous"]))
def test_another_machine(program: str, shm: Path, kind: str) -> None:
    """A guest of the older machine type is saved and resumed, and continues counting."""
    saved = save_kind(program, shm, kind, machine="pc")
    assert resumes(program, shm, kind, saved.path, "pc")


@pytest.mark.parametrize("kind", kinds(["in two files", "in a file and a module", "at an offset"]))
def test_kinds_of_memory_live(program: str, shm: Path, kind: str) -> None:
    """A guest with any kind of shared memory is saved live and resumed, and continues counting."""
    saved = save_kind(program, shm, kind, live=True)
    assert resumes(program, shm, kind, saved.path)


@pytest.mark.parametrize("kind", kinds(["in a file", "anonymous"]))
def test_into_a_memfd(kind_saved: KindSaved, program: str, shm: Path, kind: str) -> None:
    """A snapshot resumes in a QEMU with nameless memory."""
    assert resumes(program, shm, "in a memfd", kind_saved(kind).path)


@pytest.mark.parametrize("kind", kinds(MEMORIES))
def test_printed_command_for_kinds_of_memory(kind_saved: KindSaved, shm: Path, kind: str) -> None:
    """The printed command has new memory in place of the saved guest's."""
    saved = kind_saved(kind)
    made = snapmig.restore(saved.path, shm / "new", for_qemu=True, jobs=2)
    with Printed(made.qemu_arguments or (), saved.folder) as guest:
        tell(guest, made.monitor_commands or ())
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, ram_of(saved.path, shm), LAYOUT)


@pytest.mark.parametrize("kind", kinds(SHARED))
def test_shared_memory_is_saved_once(kind_saved: KindSaved, kind: str) -> None:
    """The device state in a snapshot does not have the RAM a second time."""
    found = snapmig.info(kind_saved(kind).path).attachments
    assert {item.name: item.size for item in found}["source/state"] < 4 << 20


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("anonymous", "RAM block 'ram' is not in a shared file"),
        pytest.param(
            "in a memfd",
            "RAM block 'ram' is a memfd, and QEMU [0-9.]+ leaves only files that have a path "
            "out of its device state",
            marks=pytest.mark.sweep,
        ),
    ],
)
def test_unshared_memory_is_warned_of(program: str, shm: Path, kind: str, reason: str) -> None:
    """A guest whose memory QEMU itself must write goes through a file, and the user learns why."""
    if kind == "in a memfd":
        require_qemu("8.1")  # older ones leave it out of their state
    saved = save_kind(program, shm, kind, via="mapped-ram")
    (warning,) = saved.result.warnings
    assert re.fullmatch(
        f"{reason}, so QEMU wrote all RAM to a (mapped-ram|qemu-stream) file in "
        f"{saved.path.parent} first; "
        "memory-backend-file with share=on and mem-path avoids that",
        warning,
    )


@pytest.mark.parametrize("kind", kinds(UNSHARED))
def test_unshared_memory_leaves_no_file(kind_saved: KindSaved, kind: str) -> None:
    """The temporary file of a guest's save is gone afterwards."""
    assert kind_saved(kind).left == ["snap"]


@pytest.fixture(scope="module")
def anonymous(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest whose memory is QEMU's own."""
    (shared_shm / "anonymous-guest").mkdir()
    folder = shared_shm / "anonymous-guest"
    with make_monitored(program, folder, MEMORIES["anonymous"](folder)) as guest:
        tiny.wait_passes(guest, 1)
        yield guest


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"via": "shared"}, "saved via shared: RAM block 'ram' is not in a shared file"),
        ({"via": "mapped-ram", "live": True}, "via mapped-ram: QEMU stops the guest for it"),
        ({"via": "multifd", "layout": "packed"}, "via multifd: .*the fixed layout"),
        ({"layout": "packed", "live": True}, "can't be saved live: via shared: .*; via multifd: "),
    ],
    ids=["shared", "mapped-ram", "packed", "packed live"],
)
def test_a_way_that_can_not_be_gone(
    anonymous: Monitored, shm: Path, options: dict[str, Any], reason: str
) -> None:
    """A way that the guest or another option does not allow is refused with its reason."""
    with pytest.raises(SnapmigError, match=reason):
        snapmig.save(anonymous.monitor, shm / "snap", **options)
    assert "STOP" not in events(anonymous)


def test_unshared_memory_is_written_once(program: str, shm: Path) -> None:
    """A busy guest is paused while QEMU itself writes its memory, so each page is written once."""
    backend = f"memory-backend-ram,id=ram,size={LARGE.ram}"
    with make_monitored(program, shm, Memory([backend]), LARGE) as guest:
        tiny.wait_passes(guest, 1)
        snapmig.save(guest.monitor, shm / "snap", jobs=2)
        assert guest.execute("query-migrate")["ram"]["transferred"] <= LARGE.ram * 9 // 8


def test_unlinked_memory_file(program: str, shm: Path) -> None:
    """A deleted memory file is found through QEMU's descriptors."""
    memory = file_memory(shm / "ram")
    with make_monitored(program, shm, memory) as guest:
        tiny.wait_passes(guest, 2)
        (shm / "ram").unlink()
        snapmig.save(guest.monitor, shm / "snap", jobs=2)
    with make_monitored(program, shm, memory, incoming=True) as guest:
        (shm / "ram").unlink()
        snapmig.restore(shm / "snap", guest.monitor, jobs=2)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, stood_at(shm / "snap", shm), LAYOUT)


def test_replaced_memory_file(program: str, shm: Path) -> None:
    """Another file now under the memory file's name is not mistaken for it."""
    with make_monitored(program, shm, file_memory(shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        (shm / "ram").unlink()
        (shm / "ram").write_bytes(bytes(LAYOUT.ram))
        snapmig.save(guest.monitor, shm / "snap", jobs=2)
    assert stood_at(shm / "snap", shm).number >= 2


@pytest.fixture
def small(program: str, shm: Path) -> Iterator[Monitored]:
    """Give a small running guest of its own, in a shared file."""
    with make_monitored(program, shm, file_memory(shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.mark.parametrize("live", [False, True])
def test_paused_guest_stays_paused(small: Monitored, shm: Path, live: bool) -> None:
    """A guest stopped by its user counts no further after the save."""
    small.stop()
    small.expected_words = REFUSED
    before = small.read_serial()
    snapmig.save(small.monitor, shm / "snap", live=live, jobs=2)
    assert (before, False) == (small.read_serial(), small.execute("query-status")["running"])


@pytest.mark.qemu("10.0")  # 7.2 leaves the guest in postmigrate; others were not run
@pytest.mark.parametrize("kind", kinds(["in a file", "anonymous"]))
def test_paused_guest_is_saved_again(program: str, shm: Path, kind: str) -> None:
    """
    A guest stopped by its user can be saved any number of times, and stays as it is.

    An old QEMU does that once, and the error names the remedy.
    """
    with make_monitored(program, shm, MEMORIES[kind](shm)) as guest:
        tiny.wait_passes(guest, 2)
        guest.stop()
        guest.expected_words = REFUSED
        if guest.version < (8, 0):
            snapmig.save(guest.monitor, shm / "0", jobs=2)
            with pytest.raises(SnapmigError, match="can save it again only after it has run"):
                snapmig.save(guest.monitor, shm / "1", jobs=2)
            return
        states = []
        for number in range(3):
            snapmig.save(guest.monitor, shm / f"{number}", jobs=2)
            states.append(status(guest))
    assert states == ["paused"] * 3
    first = ram_of(shm / "0", shm)
    (shm / "restored").unlink()
    assert first == ram_of(shm / "2", shm)


@pytest.mark.parametrize("kind", kinds(["in a file", "anonymous"]))
def test_paused_guest_resumes_by_the_printed_command(program: str, shm: Path, kind: str) -> None:
    """The commands printed for a guest saved while stopped let it run."""
    with make_monitored(program, shm, MEMORIES[kind](shm)) as guest:
        tiny.wait_passes(guest, 2)
        guest.stop()
        guest.expected_words = REFUSED
        snapmig.save(guest.monitor, shm / "snap", jobs=2)
        folder = guest.folder
    made = snapmig.restore(shm / "snap", shm / "new", for_qemu=True, jobs=2)
    with Printed(made.qemu_arguments or (), folder) as guest:
        tell(guest, made.monitor_commands or ())
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, ram_of(shm / "snap", shm), LAYOUT)


def test_paused_guest_runs_when_told(small: Monitored, shm: Path) -> None:
    """A guest saved while stopped continues counting when its user resumes it."""
    small.stop()
    small.expected_words = REFUSED
    snapmig.save(small.monitor, shm / "snap", jobs=2)
    small.cont()
    assert len(tiny.wait_passes(small, 2)) >= 2


def test_running_guest_is_saved_again(small: Monitored, shm: Path) -> None:
    """A guest can be saved any number of times."""
    for number in range(3):
        snapmig.save(small.monitor, shm / f"{number}", live=number == 1, jobs=2)
    assert len(tiny.wait_passes(small, 2)) >= 2


@needs_mapped_ram
def test_capabilities_are_as_before(small: Monitored, shm: Path) -> None:
    """A save leaves QEMU's settings for migrations as its user had set them."""
    migration.prepare(small, ("mapped-ram",))
    before = small.execute("query-migrate-capabilities")
    snapmig.save(small.monitor, shm / "snap", jobs=2)
    assert before == small.execute("query-migrate-capabilities")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Give a directory with less room than the guest needs."""
    with filesystems.mounted("tmpfs", tmp_path / "full", "size=1M") as place:
        yield place


@pytest.mark.root
@only_live
def test_full_destination_lets_the_guest_go(small: Monitored, full: Path, live: bool) -> None:
    """On a full filesystem a save fails, leaves nothing, and the guest continues counting."""
    with pytest.raises(NoSpaceError):
        snapmig.save(small.monitor, full / "snap", live=live, jobs=2)
    assert (len(tiny.wait_passes(small, 2)) >= 2, [*full.iterdir()]) == (True, [])


@pytest.mark.root
def test_full_destination_of_an_anonymous_guest(program: str, shm: Path, full: Path) -> None:
    """If QEMU itself finds no space, the save fails with its reason and the guest continues."""
    memory = MEMORIES["anonymous"](shm)
    with make_monitored(program, shm, memory) as guest:
        guest.expected_words = UNWRITTEN
        tiny.wait_passes(guest, 2)
        with pytest.raises(SnapmigError, match="could not migrate"):
            snapmig.save(guest.monitor, full / "snap", jobs=2, via="mapped-ram")
        assert (len(tiny.wait_passes(guest, 2)) >= 2, [*full.iterdir()]) == (True, [])
        assert guest.execute("query-fdsets") == []


def test_missing_destination_does_not_stop_the_guest(small: Monitored, shm: Path) -> None:
    """An impossible destination is refused before the guest is touched."""
    with pytest.raises(SnapmigError, match="there is no directory"):
        snapmig.save(small.monitor, shm / "nowhere" / "snap")
    assert "STOP" not in events(small)


def events(guest: Guest) -> list[str]:
    """Return the names of the events sent so far by a guest's QEMU."""
    return [str(event["event"]) for event in guest._events.history]


@pytest.fixture(scope="module")
def large(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a large guest that writes to all of its memory all the time."""
    (shared_shm / "large").mkdir()
    memory = file_memory(shared_shm / "large" / "ram", LARGE)
    with make_monitored(program, shared_shm, memory, LARGE) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 1)
        yield guest


@pytest.fixture
def busy(large: Monitored) -> Monitored:
    """Give the large guest, running whatever state a test left it in."""
    if status(large) != "running":
        large.cont()
    return large


SLOW = ("--bwlimit", "8M")
"""So that a look takes seconds, also where the test is what waits for a processor."""


@pytest.mark.parametrize(
    ("number", "option"),
    sweep(
        itertools.product((signal.SIGINT, signal.SIGTERM), ("paused", "--live")),
        lambda each: each in [(signal.SIGINT, "paused"), (signal.SIGTERM, "--live")],
    ),
)
def test_signal_lets_the_guest_go(
    busy: Monitored, shm: Path, number: signal.Signals, option: str
) -> None:
    """A program interrupted while its guest is paused resumes it."""
    how = SLOW if option == "paused" else (option,)

    def start() -> subprocess.Popen[Any]:
        (shm / "snap").unlink(missing_ok=True)
        return snapmig_program.start("save", busy.monitor, shm / "snap", "-j", 2, *how)

    process = caught(start, lambda _process: status(busy) == "postmigrate")
    try:
        process.send_signal(number)
        outcome = snapmig_program.end(process, timeout=30)
    finally:
        process.kill()
        process.communicate()
    left = f"the partial file of {shm / 'snap'} was removed; the guest runs on"
    outcome.fails(128 + number, err=f"snapmig: interrupted by {number.name}; {left}\n")
    assert (status(busy), [*shm.iterdir()]) == ("running", [])


def test_signal_in_the_first_look(busy: Monitored, shm: Path) -> None:
    """A live save interrupted before its pause leaves a guest that was never paused."""
    process = snapmig_program.start("save", busy.monitor, shm / "snap", "-j", 2, "--live", *SLOW)
    try:
        wait_for(lambda: [*shm.iterdir()])
        process.send_signal(signal.SIGTERM)
        outcome = snapmig_program.end(process, timeout=90)
    finally:
        process.kill()
        process.communicate()
    outcome.fails(143)
    assert (status(busy), [*shm.iterdir()]) == ("running", [])


def test_interrupted_guest_counts_on(large: Monitored, shm: Path) -> None:
    """The guest of an interrupted save finds no page wrong, and can be saved."""
    snapmig.save(large.monitor, shm / "snap", jobs=2)
    assert stood_at(shm / "snap", shm, LARGE).number >= 1


def while_qemu_writes(guest: Monitored, path: Path, via: str) -> subprocess.Popen[str]:
    """Start a save of a guest's private memory; return it while QEMU writes that."""

    def start() -> subprocess.Popen[str]:
        path.unlink(missing_ok=True)
        return snapmig_program.start("save", guest.monitor, path, "-j", 2, "--via", via)

    return caught(start, lambda _: guest.execute("query-migrate").get("status") == "active")


unshared_ways = pytest.mark.parametrize("via", ["multifd", "mapped-ram"])


@needs_mapped_ram
def test_a_file_that_qemu_writes_has_progress(program: str, shm: Path) -> None:
    """QEMU's writes come before our packets, and are told with the size of the RAM."""
    backend = f"memory-backend-ram,id=ram,size={LARGE.ram}"
    seen: list[snapmig.Progress] = []
    with make_monitored(program, shm, Memory([backend]), LARGE) as guest:
        tiny.wait_passes(guest, 1)
        snapmig.save(guest.monitor, shm / "snap", via="mapped-ram", progress=seen.append)
    written = [each for each in seen if each.phase == "QEMU writes a file"]
    done = [each.done_bytes for each in written]

    assert written == seen[: len(written)]
    assert (done[-1], done) == (written[-1].total_bytes, sorted(done))


@unshared_ways
def test_signal_while_qemu_writes(program: str, shm: Path, via: str) -> None:
    """A program interrupted while QEMU itself saves a guest cancels that."""
    backend = f"memory-backend-ram,id=ram,size={LARGE.ram}"
    with make_monitored(program, shm, Memory([backend]), LARGE) as guest:
        guest.expected_words = UNWRITTEN
        tiny.wait_passes(guest, 1)
        process = while_qemu_writes(guest, shm / "snap", via)
        try:
            process.send_signal(signal.SIGTERM)
            outcome = snapmig_program.end(process, timeout=90)
        finally:
            process.kill()
            process.communicate()
        outcome.fails(143)
        assert status(guest) == "running"
        assert [item.name for item in shm.iterdir()] == ["tiny.sector"]


def test_killed_while_qemu_writes(program: str, shm: Path) -> None:
    """A program killed while QEMU itself saves a guest leaves no file of its memory."""
    backend = f"memory-backend-ram,id=ram,size={LARGE.ram}"
    with make_monitored(program, shm, Memory([backend]), LARGE) as guest:
        guest.expected_words = UNWRITTEN
        tiny.wait_passes(guest, 1)
        process = while_qemu_writes(guest, shm / "snap", "mapped-ram")
        process.kill()
        process.communicate()
        assert [item.name for item in shm.iterdir()] == ["tiny.sector"]


def test_killed_while_it_receives(program: str, shm: Path) -> None:
    """A guest runs on if the program that receives it is killed, and nothing has the final name."""
    backend = f"memory-backend-ram,id=ram,size={LARGE.ram}"
    with make_monitored(program, shm, Memory([backend]), LARGE) as guest:
        guest.expected_words = UNWRITTEN
        tiny.wait_passes(guest, 1)
        process = while_qemu_writes(guest, shm / "snap", "multifd")
        process.kill()
        process.communicate()
        wait_for(lambda: status(guest) == "running")
        assert not (shm / "snap").exists()


@pytest.mark.parametrize("kind", ["in a file", "anonymous"])
def test_descriptors_are_taken_back(program: str, shm: Path, kind: str) -> None:
    """QEMU keeps no descriptor of files it wrote or read."""
    (shm / "new").mkdir()
    with make_monitored(program, shm, MEMORIES[kind](shm)) as guest:
        tiny.wait_passes(guest, 1)
        snapmig.save(guest.monitor, shm / "snap", jobs=2)
        left = [guest.execute("query-fdsets")]
    with make_monitored(program, shm, MEMORIES[kind](shm / "new"), incoming=True) as guest:
        snapmig.restore(shm / "snap", guest.monitor, jobs=2)
        left.append(guest.execute("query-fdsets"))
    assert left == [[], []]


@dataclass(frozen=True)
class Waiting:
    """A QEMU that does not fit a snapshot, and the reason."""

    reason: str
    machine: str = "q35"
    layout: Layout = LAYOUT
    incoming: bool = True
    memory: str | None = None


UNFIT = {
    "other machine": Waiting("QEMU's machine type is pc-i440fx-", machine="pc"),
    "other size": Waiting("QEMU's shared RAM is ram of 67108864 bytes", layout=Layout(64 << 20)),
    "running": Waiting("QEMU is running, expected one started with -incoming", incoming=False),
    "two blocks": Waiting("QEMU's shared RAM is low of 16777216 bytes", memory="in two files"),
    "two blocks of its own": Waiting("QEMU's RAM is low of 16777216 bytes", memory="two private"),
}


def make_unfit(program: str, folder: Path, waiting: Waiting) -> Monitored:
    """Make a QEMU that does not fit."""
    memory = file_memory(folder / "ram", waiting.layout)
    if waiting.memory is not None:
        memory = MEMORIES[waiting.memory](folder)
    return make_monitored(
        program,
        folder,
        memory,
        waiting.layout,
        machine=waiting.machine,
        incoming=waiting.incoming,
    )


@pytest.mark.parametrize("unfit", UNFIT)
def test_unfit_qemu_is_refused(
    saved: SavedIn, program: str, shm: Path, cli: Callable[..., Outcome], unfit: str
) -> None:
    """A QEMU that does not fit is refused in one sentence with exit code 1."""
    snapshot = saved(False, 2).path
    with make_unfit(program, shm, UNFIT[unfit]) as guest:
        outcome = cli("restore", snapshot, guest.monitor)
    told = UNFIT[unfit].reason in outcome.err
    outcome.fails(1, out="", lines=1)
    assert told


@pytest.mark.parametrize("unfit", ["other machine", "other size"])
def test_unfit_qemu_is_not_touched(
    saved: SavedIn, program: str, shm: Path, cli: Callable[..., Outcome], unfit: str
) -> None:
    """The memory of a QEMU that does not fit is unchanged, and it continues to wait."""
    snapshot = saved(False, 2).path
    with make_unfit(program, shm, UNFIT[unfit]) as guest:
        before = (shm / "ram").stat()
        cli("restore", snapshot, guest.monitor)
        after = (shm / "ram").stat()
        assert (before.st_blocks, before.st_mtime_ns, "inmigrate") == (
            after.st_blocks,
            after.st_mtime_ns,
            status(guest),
        )


@pytest.mark.parametrize("verb", ["save", "restore"])
@pytest.mark.parametrize("kind", ["missing", "silent", "a file"])
def test_no_monitor(
    saved: SavedIn, shm: Path, cli: Callable[..., Outcome], verb: str, kind: str
) -> None:
    """A socket without a QEMU behind it is refused in one sentence, with its path."""
    snapshot, path = saved(False, 2).path, shm / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "silent":
            listener.bind(str(path))
        elif kind == "a file":
            path.write_text("not a socket")
        pair = {"save": (f"qmp:{path}", shm / "snap"), "restore": (snapshot, f"qmp:{path}")}
        outcome = cli(verb, *pair[verb])
    told = outcome.err.startswith(f"snapmig: {path}: no QEMU monitor answers here: ")
    outcome.fails(1, lines=1)
    assert told


@pytest.mark.parametrize("way", ["qmp", "directory"])
def test_snapshot_without_device_state(
    program: str, shm: Path, cli: Callable[..., Outcome], way: str
) -> None:
    """A snapshot of a raw image has nothing for a QEMU to resume from, and the error says so."""
    (shm / "raw").write_bytes(bytes(LAYOUT.ram - 1) + b"\1")
    snapmig.save(shm / "raw", shm / "snap")
    with make_monitored(program, shm, file_memory(shm / "ram"), incoming=True) as guest:
        ways = {"qmp": (guest.monitor,), "directory": (shm / "new", "--for-qemu")}
        outcome = cli("restore", shm / "snap", *ways[way])
        outcome.fails(2, "this snapshot has none")
        assert status(guest) == "inmigrate"


@needs_mapped_ram
def test_file_snapshot_into_a_waiting_qemu(program: str, shm: Path) -> None:
    """A snapshot of a mapped-ram file resumes in a waiting QEMU."""
    with make(program, shm, memory=shm / "ram") as guest:
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, ("mapped-ram",))
        migration.save_to(guest, f"file:{shm / 'file'}")
        state = tiny.check_image(shm / "ram", LAYOUT)
    snapmig.save(shm / "file", shm / "snap", jobs=2)
    with make_monitored(program, shm, MEMORIES["anonymous"](shm), incoming=True) as guest:
        snapmig.restore(shm / "snap", guest.monitor, jobs=2)
        assert tiny.goes_on(tiny.wait_passes(guest, 2, before=0), state, LAYOUT)


@needs_mapped_ram
def test_file_snapshot_into_another_size(program: str, shm: Path) -> None:
    """A QEMU with more RAM than a migration file is refused, though QEMU itself would accept it."""
    with make(program, shm, memory=shm / "ram") as guest:
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, ("mapped-ram",))
        migration.save_to(guest, f"file:{shm / 'file'}")
    snapmig.save(shm / "file", shm / "snap", jobs=2)
    larger = UNFIT["other size"].layout
    memory = file_memory(shm / "other", larger)
    with (
        make_monitored(program, shm, memory, larger, incoming=True) as guest,
        pytest.raises(SnapmigError, match="67108864"),
    ):
        snapmig.restore(shm / "snap", guest.monitor, jobs=2)


def test_client_library_is_missing(shm: Path) -> None:
    """Without QEMU's client library one sentence names the package to install."""
    code = (
        "import sys; sys.modules['qemu.qmp'] = None\n"
        "from snapmig.commands import main; sys.exit(main(sys.argv[1:]))"
    )
    done = snapmig_program.call(
        [sys.executable, "-c", code, "save", f"qmp:{shm}/socket", shm / "snap"]
    )
    said = "snapmig: running guests need qemu.qmp: pip install 'snapmig[qemu]'\n"
    done.fails(2, out="", err=said)


def test_snapshot_is_private(saved: SavedIn) -> None:
    """Only its owner can read a snapshot of a guest."""
    assert stat.S_IMODE(saved(True, 2).path.stat().st_mode) == 0o600


def test_facts_are_kept(saved: SavedIn) -> None:
    """A snapshot of a running guest has its machine, QEMU's version, command and memory."""
    with snapmig.open(saved(False, 2).path) as snapshot:
        facts = json.loads(snapshot.attachments["source/guest.json"])
    kept = (
        facts["machine"][:7],
        "-nodefaults" in facts["command_line"],
        facts["memory"][0]["name"],
    )
    assert kept == ("pc-q35-", True, "ram")
