"""Facts about guests with RAM mapped by QEMU straight out of an uncompressed snapshot."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import snapmig
from examples import map_snapshot
from snapmig.guests.file_migrations import load_state
from snapmig.guests.guest import Guest as WaitingGuest
from tests.support import program
from tests.support.guests import migration
from tests.support.guests.resume import LAYOUT, Memory, Monitored, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State
from tests.support.guests.versions import needs_file
from tests.support.outcome import Outcome
from tests.support.sweep import sweep

pytestmark = [pytest.mark.guest, needs_file]

SCRIPT = Path(map_snapshot.__file__)


@dataclass(frozen=True)
class Mappable:
    """A snapshot of a guest, and the guest's state in it."""

    path: Path
    offset: int
    """Of the guest's RAM in the file."""
    state: State

    @property
    def end(self) -> int:
        """End of the RAM in the file."""
        return self.offset + LAYOUT.ram


@pytest.fixture(
    scope="module",
    params=sweep(["paused", "live", "repacked"], lambda way: way == "paused"),
)
def saved(request: pytest.FixtureRequest, program: str, shared_shm: Path) -> Path:
    """Give an uncompressed snapshot of a running guest, saved in some way."""
    folder = shared_shm / request.param
    folder.mkdir()
    live, repacked = request.param == "live", request.param == "repacked"
    with make_monitored(program, folder, file_memory(folder / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        compression = "zlib" if repacked else "none"
        snapmig.save(guest.monitor, folder / "snap", compression=compression, live=live)
    if repacked:
        snapmig.repack(folder / "snap", folder / "plain", compression="none")
    return folder / ("plain" if repacked else "snap")


@pytest.fixture
def snapshot(saved: Path, shm: Path, cli: Callable[..., Outcome]) -> Mappable:
    """Give that snapshot, and the place of the RAM in the file according to ``info``."""
    (block,) = cli("info", "--json", saved).json["blocks"]
    with saved.open("rb") as file:
        file.seek(block["offset"])
        (shm / "image").write_bytes(file.read(LAYOUT.ram))
    return Mappable(saved, block["offset"], tiny.check_image(shm / "image", LAYOUT))


@pytest.fixture
def copy(snapshot: Mappable, shm: Path) -> Path:
    """Give a copy of the snapshot's file."""
    subprocess.run(["cp", "--sparse=always", snapshot.path, shm / "copy"], check=True)
    return shm / "copy"


def make_mapped(program: str, folder: Path, path: Path, offset: int, share: str) -> Monitored:
    """Make a waiting guest with a part of a file as its RAM."""
    kind = f"memory-backend-file,id=ram,size={LAYOUT.ram},share={share}"
    memory = Memory([f"{kind},mem-path={path},offset={offset}"])
    return make_monitored(program, folder, memory, incoming=True)


def resume(guest: Monitored, path: Path) -> list[int]:
    """Give a guest its device state alone, and return the passes it ends then."""
    with snapmig.open(path) as snapshot:
        state = snapshot.attachments["source/state"]
    fd = os.memfd_create("state")
    try:
        os.pwrite(fd, state, 0)
        with WaitingGuest(str(guest.folder / "monitor")) as waiting:
            load_state(waiting, fd)
            waiting.run()
    finally:
        os.close(fd)
    return tiny.wait_passes(guest, 2, before=0)


def test_counts_on_in_a_copy_that_it_shares(
    snapshot: Mappable, copy: Path, program: str, shm: Path
) -> None:
    """RAM mapped from the offset given by info is the guest's, page for page."""
    with make_mapped(program, shm, copy, snapshot.offset, "on") as guest:
        counted = resume(guest, copy)
    assert tiny.goes_on(counted, snapshot.state, LAYOUT)


def test_writes_nothing_beside_its_block(
    snapshot: Mappable, copy: Path, program: str, shm: Path
) -> None:
    """A guest writing to a shared file changes only its own RAM in it."""
    with make_mapped(program, shm, copy, snapshot.offset, "on") as guest:
        resume(guest, copy)
    before, after = snapshot.path.read_bytes(), copy.read_bytes()
    assert before[snapshot.offset : snapshot.end] != after[snapshot.offset : snapshot.end]
    assert before[: snapshot.offset] == after[: snapshot.offset]
    assert before[snapshot.end :] == after[snapshot.end :]


def test_a_file_that_a_guest_wrote_into_is_no_snapshot(
    snapshot: Mappable, copy: Path, program: str, shm: Path
) -> None:
    """``verify`` finds pages that no longer match their checksums."""
    with make_mapped(program, shm, copy, snapshot.offset, "on") as guest:
        resume(guest, copy)
    assert snapmig.verify(copy).problems != ()


def test_counts_on_in_a_private_mapping(snapshot: Mappable, program: str, shm: Path) -> None:
    """A guest with a private mapping needs no copy of the snapshot."""
    with make_mapped(program, shm, snapshot.path, snapshot.offset, "off") as guest:
        counted = resume(guest, snapshot.path)
    assert tiny.goes_on(counted, snapshot.state, LAYOUT)


def test_a_private_mapping_leaves_the_snapshot_as_it_was(
    snapshot: Mappable, copy: Path, program: str, shm: Path
) -> None:
    """After a guest ran from it, the snapshot verifies and has the same bytes."""
    with make_mapped(program, shm, snapshot.path, snapshot.offset, "off") as guest:
        resume(guest, snapshot.path)
    same = subprocess.run(["cmp", snapshot.path, copy], check=False).returncode == 0
    assert (same, snapmig.verify(snapshot.path).problems) == (True, ())


def run_example(*arguments: object) -> Outcome:
    """Run the example as its user does."""
    command = [sys.executable, "-m", "examples.map_snapshot", *map(str, arguments)]
    root = SCRIPT.parents[1]
    return program.call(command, cwd=root)


def printed(path: Path, state: Path) -> tuple[Memory, Sequence[str]]:
    """Return the memory, and the commands for the monitor, printed by the example."""
    lines = run_example(path, state).lines
    backends = [shlex.split(line)[1] for line in lines if line.startswith("-object ")]
    return Memory(backends), [line[7:] for line in lines if line.startswith("(qemu) ")]


def test_resumes_as_the_example_says(snapshot: Mappable, program: str, shm: Path) -> None:
    """Options and commands printed by the example resume the guest, and the file is only read."""
    memory, commands = printed(snapshot.path, shm / "state")
    with make_monitored(program, shm, memory, incoming=True) as guest:
        for command in commands:
            migration.monitor(guest, command)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, snapshot.state, LAYOUT)


def test_two_guests_run_from_one_snapshot(snapshot: Mappable, program: str, shm: Path) -> None:
    """Neither guest sees the other's writes: both continue counting from the saved state."""
    memory, _ = printed(snapshot.path, shm / "state")
    with (
        make_monitored(program, shm, memory, incoming=True) as one,
        make_monitored(program, shm, memory, incoming=True) as other,
    ):
        counted = [resume(guest, snapshot.path) for guest in (one, other)]
    assert [tiny.goes_on(each, snapshot.state, LAYOUT) for each in counted] == [True, True]


def test_a_guest_in_a_private_mapping_is_saved_again(
    snapshot: Mappable, program: str, shm: Path
) -> None:
    """Its changes are in the new snapshot, page for page, though QEMU does not share them."""
    memory, _ = printed(snapshot.path, shm / "state")
    with make_monitored(program, shm, memory, incoming=True) as guest:
        resume(guest, snapshot.path)
        snapmig.save(guest.monitor, shm / "again")
    snapmig.restore(shm / "again", shm / "raw", format="raw")
    os.truncate(shm / "raw", LAYOUT.ram)  # the firmware's own memory follows it
    assert tiny.check_image(shm / "raw", LAYOUT).number > snapshot.state.number


@pytest.mark.parametrize("kind", ["compressed", "no guest"])
def test_example_refuses_what_can_not_be_mapped(snapshot: Mappable, shm: Path, kind: str) -> None:
    """One sentence gives the reason, and no device state is written."""
    if kind == "compressed":
        snapmig.repack(snapshot.path, shm / "other", compression="zlib")
    else:
        snapmig.save(shm / "image", shm / "other", compression="none")
    done = run_example(shm / "other", shm / "state")
    done.fails(1, out="", lines=1)
    assert not (shm / "state").exists()
