"""Facts about guests saved in the background: as they are at the start, while they run on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import NoSpaceError, SnapmigError, UsageError
from snapmig.guests.watch import AT_REST
from snapmig.handlers import gathered_pages
from snapmig.operations.save import SaveResult
from tests.qemu.test_other_user import make_other_users
from tests.support import filesystems, userfaultfd
from tests.support import program as snapmig_program
from tests.support.guests import migration
from tests.support.guests.migration import MAPPED_RAM
from tests.support.guests.qemu import CUT_OFF
from tests.support.guests.resume import (
    LAYOUT,
    Memory,
    Monitored,
    file_memory,
    make_monitored,
)
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout, State
from tests.support.guests.versions import needs_mapped_ram, require_capabilities
from tests.support.outcome import Outcome
from tests.support.processes import caught, wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

ANONYMOUS = Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"])
BUSY = Layout(ram=96 << 20, hot_mask=15, ticks=0)
"""It writes to pages everywhere, so that QEMU sends pages from everywhere."""
SPLIT = Layout(ram=LAYOUT.ram, hot_mask=7, below_4g=16 << 20)


def nodes(_folder: Path) -> Memory:
    """Return private memory in two nodes."""
    half = LAYOUT.ram // 2
    return Memory(
        [f"memory-backend-ram,id={name},size={half}" for name in ("low", "high")],
        "",
        ["-numa", "node,memdev=low", "-numa", "node,memdev=high"],
    )


MEMORIES: dict[str, Callable[[Path], Memory]] = {
    "anonymous": lambda _: ANONYMOUS,
    "in a file": lambda folder: file_memory(folder / "ram"),
    "in a memfd": lambda _: Memory([f"memory-backend-memfd,id=ram,size={LAYOUT.ram},share=on"]),
    "in two nodes": nodes,
}
KINDS = [f"{kind} on {machine}" for kind in MEMORIES for machine in ("q35", "pc")]
ESSENTIAL = ("anonymous on q35", "in a file on pc")


@dataclass(frozen=True)
class Saved:
    """A snapshot made in the background, and observations around it."""

    result: SaveResult
    path: Path
    kind: str
    machine: str
    stopped: datetime
    status: str
    passed: list[int]


@pytest.fixture(scope="module", params=sweep(KINDS, lambda kind: kind in ESSENTIAL))
def saved(request: pytest.FixtureRequest, program: str, shared_shm: Path) -> Saved:
    """Save a guest that writes all the time, of each kind."""
    kind, machine = request.param.split(" on ")
    folder = shared_shm / request.param.replace(" ", "-")
    folder.mkdir()
    with make_monitored(program, folder, MEMORIES[kind](folder), machine=machine) as guest:
        tiny.wait_passes(guest, 2)
        result = snapmig.save(guest.monitor, folder / "snap", live="background", jobs=2)
        at = guest.wait_event("STOP", 10)["timestamp"]
        stopped = datetime.fromtimestamp(at["seconds"], UTC)
        status = guest.execute("query-status")["status"]
        passed = tiny.wait_passes(guest, 2)
    return Saved(result, folder / "snap", kind, machine, stopped, status, passed)


def ram_of(snapshot: Path, folder: Path, layout: Layout = LAYOUT) -> State:
    """Return the position of a snapshot's guest, after checking all pages of its RAM."""
    snapmig.restore(snapshot, folder / "restored", format="raw", force=True)
    os.truncate(folder / "restored", layout.ram)  # firmware follows it
    return tiny.check_image(folder / "restored", layout)


def test_guest_runs_afterwards(saved: Saved) -> None:
    """A guest runs on, counts without a gap, and finds no page wrong."""
    assert saved.status == "running"
    assert [*range(saved.passed[0], saved.passed[-1] + 1)] == saved.passed


def test_way_is_reported(saved: Saved) -> None:
    """The snapshot comes over a single stream, whatever memory the guest has."""
    assert saved.result.via == "stream"


def test_pause_is_qemus_own(saved: Saved) -> None:
    """The pause is not the time of the save."""
    assert 0 < (saved.result.pause_seconds or 0) < saved.result.seconds


def test_every_page_is_written_once(saved: Saved) -> None:
    """Packets with pages from all over the guest are encoded when they are whole."""
    assert saved.result.rewritten_size == 0


def test_time_is_that_of_the_stop(saved: Saved) -> None:
    """A snapshot is as old as its contents."""
    assert snapmig.info(saved.path).created == saved.stopped.isoformat("T", "seconds")


def test_every_page_is_of_one_moment(saved: Saved, shm: Path) -> None:
    """The RAM in the snapshot is possible at one moment of the guest, page for page."""
    assert ram_of(saved.path, shm).number >= 2


@pytest.mark.parametrize(
    ("form", "capabilities"),
    [
        ("qemu-stream", ()),
        pytest.param("mapped-ram", (MAPPED_RAM,), marks=needs_mapped_ram),
    ],
    ids=["stream", "mapped"],
)
def test_resumes_from_a_file(
    saved: Saved, program: str, shm: Path, form: str, capabilities: tuple[str, ...]
) -> None:
    """QEMU loads the restored guest, which continues from the moment of the snapshot."""
    require_capabilities(capabilities)
    snapmig.restore(saved.path, shm / "state", format=form)
    memory = MEMORIES[saved.kind](shm)
    with make_monitored(program, shm, memory, machine=saved.machine, incoming=True) as guest:
        migration.prepare(guest, capabilities)
        migration.load_from(guest, f"file:{shm / 'state'}")
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, ram_of(saved.path, shm), LAYOUT)


def test_resumes_in_a_waiting_qemu(saved: Saved, program: str, shm: Path) -> None:
    """A waiting QEMU gets RAM and device state of the same moment."""
    memory = MEMORIES[saved.kind](shm)
    with make_monitored(program, shm, memory, machine=saved.machine, incoming=True) as guest:
        snapmig.restore(saved.path, guest.monitor, jobs=2)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, ram_of(saved.path, shm), LAYOUT)


@pytest.fixture(scope="module")
def guest(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest with private memory."""
    folder = shared_shm / "one"
    folder.mkdir()
    with make_monitored(program, folder, ANONYMOUS) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture(scope="module")
def busy(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest that writes to pages everywhere."""
    folder = shared_shm / "busy"
    folder.mkdir()
    memory = Memory([f"memory-backend-ram,id=ram,size={BUSY.ram}"])
    with make_monitored(program, folder, memory, BUSY) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 2)
        yield guest


def status(guest: Monitored) -> str:
    """Return the run state of a guest."""
    return str(guest.execute("query-status")["status"])


def settings(guest: Monitored) -> Any:
    """Return QEMU's settings for migrations."""
    found = guest.execute("query-migrate-parameters")
    return guest.execute("query-migrate-capabilities"), found


def test_little_memory(busy: Monitored, shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less memory than packets under way some are stored early, and all are right."""
    monkeypatch.setattr(gathered_pages, "MOST_PAGES", 2048)
    snapmig.save(busy.monitor, shm / "snap", live="background", jobs=2)
    assert ram_of(shm / "snap", shm, BUSY).number >= 2


def test_settings_are_put_back(guest: Monitored, shm: Path) -> None:
    """QEMU's own settings are as they were."""
    before = settings(guest)
    snapmig.save(guest.monitor, shm / "snap", live="background", jobs=2)
    assert settings(guest) == before


def test_as_words_of_the_command_line(
    guest: Monitored, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """The option is one word, and what follows it is the image."""
    outcome = cli("save", "--live=background", guest.monitor, shm / "snap")
    assert (outcome.code, snapmig.verify(shm / "snap").problems) == (0, ())


def test_changes_since_a_parent(guest: Monitored, shm: Path) -> None:
    """A snapshot on an older one stores only what changed, and is of one moment."""
    snapmig.save(guest.monitor, shm / "old", live="background", jobs=2)
    result = snapmig.save(guest.monitor, shm / "new", live="background", parent=shm / "old", jobs=2)
    assert (result.same_pages > 0, ram_of(shm / "new", shm).number >= 2) == (True, True)


@pytest.mark.parametrize("live", [False, True])
def test_stream_without_background(guest: Monitored, shm: Path, live: bool) -> None:
    """A guest can be saved over one stream, paused and live, and every page is right."""
    result = snapmig.save(guest.monitor, shm / "snap", live=live, via="stream", jobs=2)
    assert (result.via, ram_of(shm / "snap", shm).number >= 2) == ("stream", True)


def test_stopped_guest_stays_stopped(program: str, shm: Path) -> None:
    """A guest that its owner had stopped needs no background, and is saved as ever."""
    with make_monitored(program, shm, file_memory(shm / "ram")) as guest:
        guest.expected_words = CUT_OFF
        tiny.wait_passes(guest, 2)
        guest.stop()
        result = snapmig.save(guest.monitor, shm / "snap", live="background", jobs=2)
        assert (result.via, status(guest) != "running") == ("shared", True)


@pytest.mark.parametrize("way", ["shared", "multifd", "mapped-ram"])
def test_other_ways_are_refused(guest: Monitored, shm: Path, way: str) -> None:
    """Only QEMU knows the guest's pages at the start, and it has one way to send them."""
    with pytest.raises(UsageError, match=f"in the background via {way}, only via stream"):
        snapmig.save(guest.monitor, shm / "snap", live="background", via=way)


def test_packed_layout_is_refused(guest: Monitored, shm: Path) -> None:
    """Pages that come in any order have no place in a layout without fixed slots."""
    with pytest.raises(UsageError, match="need the fixed layout"):
        snapmig.save(guest.monitor, shm / "snap", live="background", layout="packed")


def test_files_have_no_background(tmp_path: Path) -> None:
    """Only a running guest has one."""
    (tmp_path / "ram").write_bytes(bytes(4096))
    with pytest.raises(UsageError, match="only a running guest can be saved live"):
        snapmig.save(tmp_path / "ram", tmp_path / "snap", live="background")


@pytest.mark.root
def test_full_destination(guest: Monitored, tmp_path: Path) -> None:
    """A save that finds no space fails, leaves nothing, and the guest runs on."""
    with filesystems.mounted("tmpfs", tmp_path / "full", "size=1M") as full:
        with pytest.raises((NoSpaceError, SnapmigError)):
            snapmig.save(guest.monitor, full / "snap", live="background", jobs=2)
        assert [*full.iterdir()] == []
    assert len(tiny.wait_passes(guest, 2)) >= 2


@pytest.mark.root
def test_huge_pages(program: str, shm: Path) -> None:
    """QEMU sends the small pages that a huge one has, and each is right."""
    backend = f"memory-backend-memfd,id=ram,size={LAYOUT.ram},share=on,hugetlb=on"
    with (
        filesystems.huge_pages(LAYOUT.ram >> 21),
        make_monitored(program, shm, Memory([backend])) as guest,
    ):
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, shm / "snap", live="background", jobs=2)
        assert ram_of(shm / "snap", shm).number >= 2


def is_sending(guest: Monitored) -> bool:
    """Return True if a background snapshot is under way, and the guest runs again."""
    found = guest.execute("query-migrate")
    return found.get("status") == "active" and status(guest) == "running"


def test_killed_in_the_middle(busy: Monitored, shm: Path) -> None:
    """A guest whose snapmig is killed runs on, and can be saved."""
    before = settings(busy)
    command = ("save", busy.monitor, shm / "snap", "--live=background", "-f", "-j", 2)
    process = caught(lambda: snapmig_program.start(*command), lambda _: is_sending(busy))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: busy.execute("query-migrate")["status"] in AT_REST)
    wait_for(lambda: settings(busy) == before)
    assert len(tiny.wait_passes(busy, 2)) >= 2
    snapmig.save(busy.monitor, shm / "again", live="background", jobs=2)
    assert ram_of(shm / "again", shm, BUSY).number >= 2


def test_killed_qemu(program: str, shm: Path) -> None:
    """A QEMU that dies is one sentence, and leaves nothing."""
    memory = Memory([f"memory-backend-ram,id=ram,size={BUSY.ram}"])
    with make_monitored(program, shm, memory, BUSY) as guest:
        tiny.wait_passes(guest, 1)
        before = {item.name for item in shm.iterdir()}
        command = ("save", guest.monitor, shm / "snap", "--live=background", "-f", "-j", 2)
        process = caught(lambda: snapmig_program.start(*command), lambda _: is_sending(guest))
        os.kill(guest.pid, signal.SIGKILL)
        snapmig_program.end(process, 60).fails(1, lines=1)
    assert {item.name for item in shm.iterdir()} <= before


@pytest.mark.root
def test_qemu_without_the_right(program: str, shm: Path) -> None:
    """Where the kernel allows QEMU no userfaultfd, the reason names the remedies."""
    before = os.umask(0)
    try:
        with (
            userfaultfd.for_everybody(allowed=False),
            make_other_users(program, shm, ANONYMOUS) as guest,
        ):
            tiny.wait_passes(guest, 1)
            with pytest.raises(SnapmigError, match=r"vm.unprivileged_userfaultfd=1.*a live save"):
                snapmig.save(guest.monitor, shm / "snap", live="background")
            assert (status(guest), (shm / "snap").exists()) == ("running", False)
    finally:
        os.umask(before)


@pytest.mark.sweep
def test_memory_above_4_gib(program: str, shm: Path) -> None:
    """RAM on both sides of the hole below 4 GiB has its addresses, and every page is right."""
    with make_monitored(program, shm, ANONYMOUS, SPLIT) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, shm / "snap", live="background", jobs=2)
        assert len(tiny.wait_passes(guest, 2)) >= 2
    assert ram_of(shm / "snap", shm, SPLIT).number >= 2
    pieces = snapmig.info(shm / "snap").blocks[0].pieces
    assert [piece.gpa for piece in pieces][:2] == [0, 4 << 30]


@pytest.mark.sweep
def test_many_times(busy: Monitored, shm: Path) -> None:
    """However the guest's writes and QEMU's reads fall, each snapshot is of one moment."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        snapmig.save(busy.monitor, shm / "snap", live="background", jobs=2, force=True)
        assert ram_of(shm / "snap", shm, BUSY).number >= 2
