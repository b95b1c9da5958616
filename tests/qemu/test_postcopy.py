"""Facts about guests that run before their memory has come."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import QMPError

import snapmig
from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError, UsageError
from snapmig.guests.monitor import MonitorError
from snapmig.operations.runs.working_set import write_working_set
from tests.qemu.test_other_user import make_other_users
from tests.support import program as program_of_snapmig
from tests.support import userfaultfd
from tests.support.guests.migration import wait_served
from tests.support.guests.private import MEMORIES
from tests.support.guests.qemu import IO_FAILURE, Guest
from tests.support.guests.resume import LAYOUT, Memory, Monitored, make_monitored
from tests.support.guests.saves import PRIVATE, SAVES, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.processes import children, wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

WAYS = [(kind, jobs) for kind in SAVES for jobs in (1, 2, 4)]
ESSENTIAL = [("shared", 2), ("multifd", 1), ("child", 2)]


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


SPLIT = Layout(ram=LAYOUT.ram, hot_mask=7, below_4g=16 << 20)
BUSY = Layout(ram=64 << 20, ticks=0)
"""All of its pages are written in each pass."""
MACHINES = [
    (memory, machine, layout)
    for memory in ("anonymous", "of two nodes", "a memfd", "a shared file")
    for machine in ("q35", "pc")
    for layout in (LAYOUT, SPLIT)
]
LARGE_MACHINE = re.compile("not a multiple of 1G")


@pytest.mark.parametrize(
    ("memory", "machine", "layout"),
    sweep(MACHINES, lambda way: way[0] == "of two nodes" and way[2] is SPLIT),
)
def test_memories_and_machines(
    program: str, shm: Path, memory: str, machine: str, layout: Layout
) -> None:
    """Memory of any kind, in two backends, and above 4 GiB, comes to where it belongs."""
    (shm / "old").mkdir()
    path = shm / "snap"
    with make_monitored(
        program, shm, MEMORIES[memory](shm / "old"), layout, machine=machine
    ) as guest:
        guest.expected_words = LARGE_MACHINE
        before = tiny.wait_passes(guest, 2)[-1]
        snapmig.save(guest.monitor, path, jobs=2, via="multifd")
        after = tiny.passes(guest.read_serial())[-1]
    with make_monitored(
        program, shm, MEMORIES[memory](shm), layout, machine=machine, incoming=True
    ) as guest:
        guest.expected_words = LARGE_MACHINE
        snapmig.restore(path, guest.monitor, jobs=2, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)  # it stops at a wrong page
    assert before < counted[0] <= after + 2  # it may have been printing


@pytest.mark.parametrize("jobs", sweep([1, 2, 4], lambda jobs: jobs == 2))
def test_a_guest_that_writes_hard(program: str, shm: Path, jobs: int) -> None:
    """A guest that writes to all of its memory while that comes finds every page right."""
    path, memory = shm / "snap", Memory([f"memory-backend-ram,id=ram,size={BUSY.ram}"])
    with make_monitored(program, shm, memory, BUSY) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, path, jobs=2, via="multifd")
    with make_monitored(program, shm, memory, BUSY, incoming=True) as guest:
        result = snapmig.restore(path, guest.monitor, jobs=jobs, postcopy=True, bwlimit="40M")
        assert len(tiny.wait_passes(guest, 3, before=0)) >= 3
    assert result.packets_asked_for


def test_a_working_set(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """A second restore with the same file sends before what the first one was asked for."""
    found, asked = saved("multifd"), []
    for _ in range(2):
        with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
            options: dict[str, Any] = {"postcopy": True, "working_set": shm / "set"}
            result = snapmig.restore(found.path, guest.monitor, jobs=2, bwlimit="20M", **options)
            counted = tiny.wait_passes(guest, 2, before=0)
        assert tiny.goes_on(counted, found.state, LAYOUT)
        asked.append((result.packets_before_run, result.packets_asked_for))
    assert (asked[0][0], asked[1][0]) == (0, asked[0][1])
    with SnapshotFile(str(found.path)) as file:
        assert asked[1][1] <= file.geometry.packet_count - asked[0][1]


def test_settings_are_put_back(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """QEMU's capabilities and objects are as before."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        before = settings(guest)
        snapmig.restore(found.path, guest.monitor, postcopy=True)
        assert settings(guest) == before


def test_a_waiting_guest_stays_paused_until_then(
    saved: Callable[[str], Saved], program: str, shm: Path
) -> None:
    """A QEMU started with -S is let run, too."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True, extra=["-S"]) as guest:
        snapmig.restore(found.path, guest.monitor, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_restore_is_continued(
    saved: Callable[[str], Saved], program: str, shm: Path, number: int
) -> None:
    """The guest waits, and gets the rest of its memory from the same command."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = IO_FAILURE
        cut_off(guest, found.path, number)
        result = snapmig.restore(found.path, guest.monitor, jobs=2, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
        assert postcopy_is_on(guest) is False
    assert (result.seconds_to_run, tiny.goes_on(counted, found.state, LAYOUT)) == (None, True)


def test_a_worker_is_killed(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """The error says that the guest waits, and the same command goes on with it."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = IO_FAILURE
        process = start(found.path, guest)
        wait_served(guest)
        os.kill(children(process.pid)[0], signal.SIGKILL)
        program_of_snapmig.end(process, 60).fails(5, "waits for the rest of its memory: repeat")
        wait_for(lambda: migration(guest) == "postcopy-paused")
        snapmig.restore(found.path, guest.monitor, jobs=2, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


def test_another_snapshot_does_not_continue(
    saved: Callable[[str], Saved], program: str, shm: Path
) -> None:
    """The memory of another snapshot is not mixed into a guest that waits."""
    found, other = saved("multifd"), saved("child")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = IO_FAILURE
        cut_off(guest, found.path, signal.SIGKILL)
        with pytest.raises(MonitorError, match="waits for memory from another snapshot"):
            snapmig.restore(other.path, guest.monitor, postcopy=True)
        snapmig.restore(found.path, guest.monitor, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


def test_killed_before_the_guest_runs(
    saved: Callable[[str], Saved], program: str, shm: Path
) -> None:
    """A QEMU whose source went before the guest ran ends, or fails, and nothing of ours is left."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = re.compile("")
        with SnapshotFile(str(found.path)) as file:
            write_working_set(shm / "set", file.geometry, range(file.geometry.packet_count))
        process = start(found.path, guest, "--working-set", shm / "set")
        wait_for(lambda: migration(guest) == "active")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_for(lambda: migration(guest) in ("gone", "failed"))


def test_the_destination_is_killed(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """A QEMU that ends is one sentence, at once, and no worker is left."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        process = start(found.path, guest)
        wait_for(lambda: migration(guest) == "postcopy-active")
        os.kill(guest.pid, signal.SIGKILL)
        program_of_snapmig.end(process, 60).fails(1, lines=1)


@pytest.mark.root
def test_no_userfaultfd(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """Where the kernel allows QEMU no userfaultfd, the reason names the remedies."""
    found, before = saved("multifd"), os.umask(0)
    try:
        with (
            userfaultfd.for_everybody(allowed=False),
            make_other_users(program, shm, PRIVATE, incoming=True) as guest,
        ):
            guest.expected_words = re.compile("serfault")
            with pytest.raises(SnapmigError, match=r"vm.unprivileged_userfaultfd=1"):
                snapmig.restore(found.path, guest.monitor, postcopy=True)
            assert guest.execute("query-status")["status"] == "inmigrate"
    finally:
        os.umask(before)


def test_sent_to_somebody_elses_qemu(
    saved: Callable[[str], Saved], program: str, shm: Path
) -> None:
    """A QEMU whose monitor is not ours runs the guest at once, too."""
    found = saved("shared")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        address = listen(guest)
        result = snapmig.send(found.path, address, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert (result.via, tiny.goes_on(counted, found.state, LAYOUT)) == ("postcopy", True)


def test_a_killed_send_is_continued(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """After migrate-recover the rest is sent to the guest that waits."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = IO_FAILURE
        address = listen(guest)
        slowly = ("send", "--postcopy", "--bwlimit", "2M", found.path, address)
        process = program_of_snapmig.start(*slowly, nice=0)
        wait_served(guest)
        process.kill()
        process.communicate()
        wait_for(lambda: migration(guest) == "postcopy-paused")
        guest.execute("migrate-recover", uri=f"{address}-again")
        snapmig.send(found.path, f"{address}-again", postcopy=True, recover=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


@pytest.mark.parametrize(
    "options",
    [
        {"postcopy": True, "via": "multifd"},
        {"postcopy": True, "wire": "zstd"},
        {"working_set": "set"},
    ],
)
def test_options_that_exclude_each_other(options: dict[str, Any]) -> None:
    """Postcopy is a way of its own."""
    with pytest.raises(UsageError, match="postcopy"):
        snapmig.restore("no.snap", "qmp:/no", **options)


def test_only_into_a_qemu(tmp_path: Path) -> None:
    """A file has no guest to run."""
    with pytest.raises(UsageError, match="postcopy is for a QEMU that waits"):
        snapmig.restore("no.snap", tmp_path / "image", postcopy=True)


def start(path: Path, guest: Monitored, *options: object) -> subprocess.Popen[str]:
    """Start a slow restore as a command, which no guest waits for longer than the limit has it."""
    slowly = ("restore", "--postcopy", "-j", 2, "--bwlimit", "2M")
    return program_of_snapmig.start(*slowly, *options, path, guest.monitor, nice=0)


def cut_off(guest: Monitored, path: Path, number: int) -> None:
    """Restore, and end that by a signal while the guest runs already."""
    process = start(path, guest)
    wait_served(guest)
    process.send_signal(number)
    err = program_of_snapmig.end(process, 60).err
    if number == signal.SIGINT:
        words = "the guest waits for the rest of its memory: repeat the command to send it"
        assert err == f"snapmig: interrupted by SIGINT; {words}\n"
    wait_for(lambda: migration(guest) == "postcopy-paused")


def listen(guest: Guest) -> str:
    """Have QEMU wait for a guest by postcopy, and return its address."""
    wanted = [{"capability": "postcopy-ram", "state": True}]
    guest.execute("migrate-set-capabilities", capabilities=wanted)
    address = f"unix:{guest.folder / 'in'}"
    guest.execute("migrate-incoming", uri=address)
    return address


def migration(guest: Guest) -> str:
    """Return the state of QEMU's migration, ``gone`` if QEMU has ended."""
    try:
        return str(guest.execute("query-migrate").get("status"))
    except (QMPError, OSError):
        return "gone"


def postcopy_is_on(guest: Guest) -> bool:
    """Return True if QEMU's capability is on."""
    listed = guest.execute("query-migrate-capabilities")
    return bool(next(one["state"] for one in listed if one["capability"] == "postcopy-ram"))


def settings(guest: Guest) -> object:
    """Return QEMU's settings for migrations, and its objects."""
    commands = ("query-migrate-capabilities", "query-migrate-parameters")
    objects = guest.execute("qom-list", path="/objects")
    return [guest.execute(one) for one in commands], sorted(one["name"] for one in objects)
