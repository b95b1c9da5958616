"""Facts about batches of guests that run under QEMU."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import snapmig
from tests.support import program as snapmig_program
from tests.support.guests.qemu import CUT_OFF
from tests.support.guests.resume import Monitored, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.processes import wait_for

pytestmark = pytest.mark.guest

LAYOUT = Layout(ram=32 << 20, hot_mask=7)


@pytest.fixture
def guests(program: str, shm) -> Iterator[list[Monitored]]:
    """Give two guests that run, with memory in shared files."""
    with ExitStack() as stack:
        found = []
        for name in ("one", "two"):
            (shm / name).mkdir()
            memory = file_memory(shm / name / "ram", LAYOUT)
            found.append(stack.enter_context(make_monitored(program, shm / name, memory, LAYOUT)))
        for guest in found:
            tiny.wait_passes(guest, 2)
            guest.rest()
        yield found


def _write(shm, guests, more="", each=""):
    text = more
    for name, guest in zip(("one", "two"), guests, strict=True):
        text += f'[[save]]\nname = "{name}"\nimage = "{guest.monitor}"\n'
        text += f'snapshot = "{{name}}.snap"\n{each}\n'
    (shm / "jobs.toml").write_text(text)
    return shm / "jobs.toml"


def _status(guests):
    return [guest.execute("query-status")["status"] for guest in guests]


@pytest.mark.parametrize("live", ["false", "true"])
def test_two_guests_at_once(shm, guests, live):
    """Both are saved while both run, their memory is right, and both count on."""
    result = snapmig.batch(_write(shm, guests, each=f"live = {live}"))

    assert [job.message for job in result.jobs] == [None, None]
    assert _status(guests) == ["running", "running"]
    for name, guest in zip(("one", "two"), guests, strict=True):
        passed = tiny.wait_passes(guest, 2)
        assert [*range(passed[0], passed[-1] + 1)] == passed
        guest.rest()
        snapmig.restore(shm / f"{name}.snap", shm / "restored", format="raw", force=True)
        tiny.check_image(shm / "restored", LAYOUT)


def test_a_guest_that_fails_goes_on_and_so_does_the_other(shm, guests):
    """One guest's destination exists; the other is saved, and both run."""
    (shm / "one.snap").write_bytes(b"taken")
    result = snapmig.batch(_write(shm, guests))

    assert [job.state for job in result.jobs] == ["failed", "done"]
    assert _status(guests) == ["running", "running"]


def test_a_guest_whose_qemu_ends_fails_alone(shm, guests):
    """A monitor that goes away in the middle is one job's failure."""

    def end(progress):
        if progress.running.get("one") is not None:
            guests[0].quit()

    text = "bwlimit = '4M'\nmax_guests_at_once = 2\n"
    try:
        result = snapmig.batch(_write(shm, guests, text), progress=end)
    finally:
        status = _status(guests[1:])

    assert [job.state for job in result.jobs] == ["failed", "done"]
    assert (status, result.exit_code, (shm / "one.snap").exists()) == (["running"], 1, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_all_guests_go_on(shm, guests, number):
    """Both are paused, a signal comes, and both run; nothing is left beside them."""
    for guest in guests:
        guest.expected_words = CUT_OFF
    path = _write(shm, guests, "bwlimit = '100K'\nmax_guests_at_once = 2\n")
    process = snapmig_program.start("batch", path)
    try:
        wait_for(lambda: "running" not in _status(guests))
        process.send_signal(number)
        outcome = snapmig_program.end(process, timeout=60)
    finally:
        process.kill()
        process.communicate()

    left = "0 of 2 jobs done, nothing is left of the others"
    outcome.fails(128 + number, err=f"snapmig: interrupted by {number.name}; {left}\n")
    assert _status(guests) == ["running", "running"]
    for guest in guests:
        passed = tiny.wait_passes(guest, 2)
        assert [*range(passed[0], passed[-1] + 1)] == passed
    assert [path.name for path in shm.iterdir() if "snap" in path.name] == []


def test_fail_fast_lets_the_other_guest_go_on(shm, guests):
    """A guest that was paused for a save that is cancelled runs."""
    (shm / "two.snap").write_bytes(b"taken")
    text = "bwlimit = '100K'\nmax_guests_at_once = 2\nfail_fast = true\n"
    result = snapmig.batch(_write(shm, guests, text))

    assert [job.state for job in result.jobs] == ["cancelled", "failed"]
    assert _status(guests) == ["running", "running"]
