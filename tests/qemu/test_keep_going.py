"""Facts about a damaged snapshot of a real guest: what is left of it is an image that QEMU runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from tests.support import kinds
from tests.support.guests.qemu import GuestError
from tests.support.guests.resume import make_monitored
from tests.support.guests.saves import PRIVATE, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.versions import require_qemu
from tests.support.program import run

pytestmark = pytest.mark.guest

DAMAGED = 40


@pytest.fixture
def damaged(saved: Callable[[str], Saved], shm: Path) -> Path:
    """Give a guest's snapshot with a byte of a packet's stored bytes changed."""
    raw = bytearray(saved("zstd").path.read_bytes())
    raw[kinds.read(saved("zstd").path)[DAMAGED].offset + 20] ^= 0xFF
    (shm / "damaged").write_bytes(raw)
    return shm / "damaged"


@pytest.mark.parametrize("name", ["qemu-stream", "mapped-ram"])
def test_qemu_runs_what_is_left(damaged: Path, program: str, shm: Path, name: str) -> None:
    """QEMU takes the file, and the guest finds a wrong page first where the list has it."""
    if name == "mapped-ram":
        require_qemu("9.0")
    found = snapmig.restore(damaged, shm / "image", format=name, keep_going=True)
    snapmig.save(shm / "image", shm / "snap")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        snapmig.restore(shm / "snap", guest.monitor)
        with pytest.raises(GuestError, match="wrong word at offset") as caught:
            tiny.wait_passes(guest, 2, before=0)

    (lost,) = found.lost
    offset = int(re.findall("offset 0x([0-9A-F]{8})", str(caught.value))[0], 16)
    # A guest that was saved as it checked one of these pages goes on in the middle of it.
    assert offset in range(lost.offset, lost.offset + lost.size)
    assert (lost.block, lost.gpa) == ("ram", lost.offset)


def test_a_waiting_guest_stays_as_it_was(damaged: Path, program: str, shm: Path) -> None:
    """A QEMU that waits is refused, and is not touched."""
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        run("restore", "--keep-going", damaged, guest.monitor).fails(
            2, "a guest can't run on with zeros in place of lost memory", lines=1
        )
        assert guest.execute("query-status")["status"] == "inmigrate"
