"""Facts about guests that run from a mount, under every QEMU that can read files lazily."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import snapmig
from tests.support.guests import migration
from tests.support.guests.qemu import rest_all
from tests.support.guests.resume import (
    LAYOUT,
    Memory,
    Monitored,
    file_memory,
    goes_on,
    make,
    make_monitored,
)
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State
from tests.support.guests.versions import needs_file, needs_mapped_ram, require_program
from tests.support.mounts import mounted, requires_fuse

pytestmark = [pytest.mark.guest]


@pytest.fixture(scope="module")
def program() -> Iterator[str]:
    """Give the program of QEMU, where it can run guests."""
    requires_fuse()
    yield require_program()
    rest_all()


@pytest.fixture(scope="module")
def files(program: str, shared_shm: Path) -> Iterator[tuple[Path, State]]:
    """Give a mounted snapshot of a running guest with shared memory, and its state."""
    with make_monitored(program, shared_shm, file_memory(shared_shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, shared_shm / "snap")
    with mounted(shared_shm / "snap", shared_shm / "mnt") as found:
        copy = shared_shm / "copy"
        copy.write_bytes((found / "guest.ram").read_bytes())
        yield found, tiny.check_image(copy, LAYOUT)


def make_mapped(program: str, folder: Path, files: Path) -> Monitored:
    """Make a waiting guest with a file of a mount as its private RAM."""
    folder.mkdir()
    kind = f"memory-backend-file,id=ram,size={LAYOUT.ram},share=off,readonly=on,rom=off"
    return make_monitored(
        program, folder, Memory([f"{kind},mem-path={files / 'guest.ram'}"]), incoming=True
    )


def resume(guest: Monitored, files: Path) -> list[int]:
    """Give a guest its device state alone, and return the passes it ends then."""
    migration.prepare(guest)
    migration.load_from(guest, f"file:{files / 'device-state'}")
    return tiny.wait_passes(guest, 2, before=0)


@needs_file
def test_two_guests_run_from_one_mount(files: tuple[Path, State], program: str, shm: Path) -> None:
    """Both find every page right and count on, and neither sees the other's writes."""
    mount, state = files
    with (
        make_mapped(program, shm / "1", mount) as one,
        make_mapped(program, shm / "2", mount) as two,
    ):
        counted = [resume(guest, mount) for guest in (one, two)]
    assert [tiny.goes_on(each, state, LAYOUT) for each in counted] == [True, True]


@needs_mapped_ram
@pytest.mark.parametrize(
    "capabilities",
    [("mapped-ram",), pytest.param(("mapped-ram", "multifd"), marks=pytest.mark.sweep)],
    ids=["plain", "multifd"],
)
def test_qemu_loads_the_mapped_ram_file(
    program: str, shm: Path, capabilities: tuple[str, ...]
) -> None:
    """``-incoming file:`` reads the mount's file as if QEMU had written it."""
    with make(program, shm) as guest:
        tiny.wait_passes(guest, 2)
        migration.prepare(guest, ["mapped-ram"])
        migration.save_to(guest, f"file:{shm / 'saved'}")
    snapmig.save(shm / "saved", shm / "snap")
    snapmig.restore(shm / "snap", shm / "raw", format="raw", block="ram")
    state = tiny.check_image(shm / "raw", LAYOUT)
    with mounted(shm / "snap", shm / "mnt") as mount:
        file = mount / "guest.mapped-ram"
        assert goes_on(program, shm, f"file:{file}", state, capabilities)
