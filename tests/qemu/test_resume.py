"""Facts about a real guest's memory whose save and restore are killed and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from tests.support import processes, ram
from tests.support.guests.resume import LAYOUT, make_monitored
from tests.support.guests.saves import PRIVATE, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.versions import require_qemu
from tests.support.processes import wait_for
from tests.support.program import run
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest


def killed(size: int, path: Path, *arguments: object) -> None:
    """Run the program slowly, and kill it when it has written so many bytes of a file."""
    with processes.running(*arguments, "--resume", "--bwlimit", "2M", "-j", 2) as process:
        pattern = f".{path.name}.*.resume"
        wait_for(lambda: sum(map(ram.disk_bytes, path.parent.glob(pattern))) > size)
        process.kill()


@pytest.mark.parametrize(
    "form", sweep(["mapped-ram", "qemu-stream"], lambda form: form == "qemu-stream")
)
def test_a_guest_whose_save_was_killed_comes_back(
    saved: Callable[[str], Saved], program: str, shm: Path, form: str
) -> None:
    """A migration file is saved by two runs, restored by two, and the guest continues."""
    if form == "mapped-ram":
        require_qemu("9.0")
    found = saved("multifd")
    snapmig.restore(found.path, shm / "image", format=form, jobs=2)

    half = ram.disk_bytes(found.path) // 2
    killed(half, shm / "snap", "save", shm / "image", shm / "snap")
    kept = run("save", shm / "image", shm / "snap", "--resume", "--json").ok().json["kept_packets"]

    words = ("restore", shm / "snap", shm / "ram", "--block", "ram")
    killed(LAYOUT.ram // 2, shm / "ram", *words)
    run(*words, "--resume").ok()
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        run("restore", shm / "snap", guest.monitor).ok()
        counted = tiny.wait_passes(guest, 2, before=0)
    assert (kept > 0, tiny.goes_on(counted, found.state, LAYOUT)) == (True, True)
    assert tiny.check_image(shm / "ram", LAYOUT) == found.state
