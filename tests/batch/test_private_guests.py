"""Facts about batches of guests that QEMU itself must send, by workers shared by all of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

import snapmig
from tests.support import program as snapmig_program
from tests.support.guests.qemu import CUT_OFF, rest_all
from tests.support.guests.resume import Memory, Monitored, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout, State
from tests.support.guests.versions import require_qemu
from tests.support.processes import children, cpu_ticks, wait_for, words

pytestmark = pytest.mark.guest

LAYOUT = Layout(ram=32 << 20, hot_mask=7)
NAMES = ("one", "two", "three")
PRIVATE = Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"])


@pytest.fixture
def guests(program: str, shm: Path) -> Iterator[list[Monitored]]:
    """Give three guests that run, the last of them with memory in a shared file."""
    with ExitStack() as stack:
        found = []
        for name in NAMES:
            (shm / name).mkdir()
            memory = file_memory(shm / name / "ram", LAYOUT) if name == "three" else PRIVATE
            found.append(stack.enter_context(make_monitored(program, shm / name, memory, LAYOUT)))
        for guest in found:
            guest.expected_words = CUT_OFF
            tiny.wait_passes(guest, 2)
            guest.rest()
        yield found


def jobs(folder: Path, guests: Sequence[Monitored], before: str = "", each: str = "") -> Path:
    """Write the batch's file."""
    text = before
    for name, guest in zip(NAMES, guests, strict=True):
        text += f'[[save]]\nname = "{name}"\nimage = "{guest.monitor}"\n'
        text += f'snapshot = "{{name}}.snap"\n{each}\n'
    (folder / "jobs.toml").write_text(text)
    return folder / "jobs.toml"


def state_of(folder: Path, name: str) -> State:
    """Return where a saved guest stood, after checking all pages of its main RAM."""
    snapmig.restore(folder / f"{name}.snap", folder / "restored", format="raw", force=True)
    os.truncate(folder / "restored", LAYOUT.ram)
    return tiny.check_image(folder / "restored", LAYOUT)


def check(folder: Path, name: str) -> None:
    """Check all pages of a saved guest's main RAM, and the snapshot."""
    state_of(folder, name)
    assert snapmig.verify(folder / f"{name}.snap").problems == ()


def check_goes_on(guest: Monitored) -> None:
    """Check that a guest runs and counts without a gap."""
    wait_for(lambda: guest.execute("query-status")["status"] == "running")
    passed = tiny.wait_passes(guest, 2)
    assert [*range(passed[0], passed[-1] + 1)] == passed
    guest.rest()


BUSY_TICKS = 10
POSTCOPY = 'postcopy = true\nworking_set = "{stem}.set"\n'
AT_ONCE = "max_guests_at_once = 3\n"


@pytest.mark.parametrize(
    "each",
    [pytest.param("", marks=pytest.mark.sweep), "live = true"],
    ids=["paused", "live"],
)
@pytest.mark.parametrize(
    "workers",
    [pytest.param(1, marks=pytest.mark.sweep), 2, pytest.param(5, marks=pytest.mark.sweep)],
)
def test_several_at_once(shm: Path, guests: list[Monitored], each: str, workers: int) -> None:
    """Guests of both kinds are saved side by side, their memory is right, and all count on."""
    if each:
        require_qemu("8.0")
    result = snapmig.batch(jobs(shm, guests, f"jobs = {workers}\n{AT_ONCE}", each))
    rest_all()

    assert [job.message for job in result.jobs] == [None] * 3
    for name, guest in zip(NAMES, guests, strict=True):
        check_goes_on(guest)
        check(shm, name)


def restores(folder: Path, guests: Sequence[Monitored], before: str, each: str) -> Path:
    """Write a batch's file that restores all guests."""
    text = before
    for name, guest in zip(NAMES, guests, strict=False):
        text += f'[[restore]]\nname = "{name}"\nsnapshot = "{name}.snap"\n'
        text += f'image = "{guest.monitor}"\n{each}'
    (folder / "restores.toml").write_text(text)
    return folder / "restores.toml"


@pytest.mark.parametrize("each", ["", POSTCOPY], ids=["whole", "postcopy"])
@pytest.mark.parametrize(
    "workers",
    [1, pytest.param(2, marks=pytest.mark.sweep), pytest.param(5, marks=pytest.mark.sweep)],
)
def test_several_go_back_at_once(
    program: str, shm: Path, guests: list[Monitored], workers: int, each: str
) -> None:
    """Guests are sent into QEMUs with private memory side by side, and count on there."""
    snapmig.batch(jobs(shm, guests, AT_ONCE))
    rest_all()
    states = [state_of(shm, name) for name in NAMES[:2]]
    with ExitStack() as stack:
        waiting = []
        for name in NAMES[:2]:
            (shm / f"new-{name}").mkdir()
            new = make_monitored(program, shm / f"new-{name}", PRIVATE, LAYOUT, incoming=True)
            waiting.append(stack.enter_context(new))
        result = snapmig.batch(restores(shm, waiting, f"jobs = {workers}\n{AT_ONCE}", each))
        counted = [tiny.wait_passes(guest, 2, before=0) for guest in waiting]

    assert [job.message for job in result.jobs] == [None] * 2
    for passes, state in zip(counted, states, strict=True):
        assert tiny.goes_on(passes, state, LAYOUT)
    assert len([*shm.glob("*.set")]) == (2 if each else 0)


def test_a_qemu_that_ends_fails_alone(shm: Path, guests: list[Monitored]) -> None:
    """A source that goes in the middle is one job's failure, and the others are right."""

    def end(progress: snapmig.BatchProgress) -> None:
        if progress.running.get("one") is not None and guests[0].is_running():
            guests[0].quit()

    result = snapmig.batch(jobs(shm, guests, f"bwlimit = '8M'\n{AT_ONCE}"), progress=end)
    rest_all()

    assert [job.state for job in result.jobs] == ["failed", "done", "done"]
    if (shm / "one.snap").exists():  # it went when all of it was stored, and before it was let go
        check(shm, "one")
    for name, guest in zip(NAMES[1:], guests[1:], strict=True):
        check_goes_on(guest)
        check(shm, name)


def test_a_worker_that_dies_fails_those_it_received(shm: Path, guests: list[Monitored]) -> None:
    """A killed worker takes what it received with it; nobody hangs, and all guests run on."""
    path = jobs(shm, guests, f"jobs = 2\nbwlimit = '5M'\n{AT_ONCE}")
    process = snapmig_program.start("batch", path)
    try:
        wait_for(lambda: guests[0].execute("query-migrate").get("status") == "active")
        workers = wait_for(lambda: _busy(process.pid))
        os.kill(workers[0], signal.SIGKILL)
        outcome = snapmig_program.end(process, timeout=90)
    finally:
        process.kill()
        process.communicate()
    outcome.fails(5)
    assert not (shm / "one.snap").exists()
    for guest in guests:
        check_goes_on(guest)


def _busy(pid: int) -> list[int]:
    """Return the children of a process that have worked, without guards, which are programs."""
    own = words(pid)
    return [one for one in children(pid) if words(one) == own and cpu_ticks(one) >= BUSY_TICKS]


def test_fail_fast_lets_the_others_go(shm: Path, guests: list[Monitored]) -> None:
    """Guests whose saves are cancelled under way run on, and leave no file."""
    (shm / "three.snap").write_bytes(b"taken")
    text = f"bwlimit = '2M'\nfail_fast = true\n{AT_ONCE}"
    result = snapmig.batch(jobs(shm, guests, text))

    assert [job.state for job in result.jobs] == ["cancelled", "cancelled", "failed"]
    for guest in guests:
        check_goes_on(guest)
    assert [path.name for path in shm.iterdir() if "snap" in path.name] == ["three.snap"]


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_a_signal_lets_all_guests_go_on(
    shm: Path, guests: list[Monitored], number: signal.Signals
) -> None:
    """All migrations are cancelled, all guests run, and nothing is left beside them."""
    path = jobs(shm, guests, f"bwlimit = '2M'\n{AT_ONCE}")
    process = snapmig_program.start("batch", path)
    try:
        wait_for(lambda: guests[0].execute("query-migrate").get("status") == "active")
        process.send_signal(number)
        outcome = snapmig_program.end(process, timeout=60)
    finally:
        process.kill()
        process.communicate()
    left = "0 of 3 jobs done, nothing is left of the others"
    outcome.fails(128 + number, err=f"snapmig: interrupted by {number.name}; {left}\n")
    for guest in guests:
        check_goes_on(guest)
    assert [path.name for path in shm.iterdir() if "snap" in path.name] == []
