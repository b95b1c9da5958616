"""Facts about a guest sent into QEMU out of object storage."""

from __future__ import annotations

from pathlib import Path

import pytest

import snapmig
from tests.support.guests import migration
from tests.support.guests.private import private_memory, ram_of
from tests.support.guests.resume import LAYOUT, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.versions import require_program

pytestmark = [pytest.mark.guest, pytest.mark.sweep]


def put_guest(program: str, shm: Path, url: str) -> None:
    """Save a guest, and put its snapshot into the bucket."""
    (shm / "source").mkdir()
    with make_monitored(program, shm / "source", private_memory()) as guest:
        tiny.wait_passes(guest, 1)
        snapmig.save(guest.monitor, shm / "snap", jobs=2)
    snapmig.repack(shm / "snap", url)


@pytest.mark.usefixtures("store")
def test_a_guest_that_runs_out_of_a_bucket(shm: Path, url: str) -> None:
    """A guest counts on while its memory comes from an object, with every page right."""
    program = require_program()
    put_guest(program, shm, url)
    with make_monitored(program, shm, private_memory(), incoming=True) as guest:
        result = snapmig.restore(url, guest.monitor, jobs=2, postcopy=True)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert result.via == "postcopy"
    assert tiny.goes_on(counted, ram_of(shm / "snap", shm), LAYOUT)


@pytest.mark.usefixtures("store")
def test_a_guest_in_a_bucket(shm: Path, url: str) -> None:
    """A guest whose snapshot is an object is sent over channels, and counts on."""
    program = require_program()
    put_guest(program, shm, url)
    with make_monitored(program, shm, private_memory(), incoming=True) as guest:
        migration.prepare(guest, (migration.MULTIFD,), multifd_channels=2)
        address = f"unix:{guest.folder / 'in'}"
        guest.execute("migrate-incoming", uri=address)
        snapmig.send(url, address, timeout=30)
        guest.cont()
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, ram_of(shm / "snap", shm), LAYOUT)
