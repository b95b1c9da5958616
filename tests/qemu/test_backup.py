"""Facts about backups of guests that run under QEMU."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import snapmig
from snapmig.backups.plan import Plan
from snapmig.backups.space import expected_size
from snapmig.guests.wait import USUAL_WAIT
from tests.support.guests.private import private_memory, ram_of
from tests.support.guests.resume import LAYOUT, Monitored, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.outcome import Outcome

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def guest(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest in a shared file."""
    with make_monitored(program, shared_shm, file_memory(shared_shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture
def config(guest: Monitored, tmp_path: Path) -> Path:
    """Give a configuration with that guest."""
    (tmp_path / "repo").mkdir()
    path = tmp_path / "backup.toml"
    path.write_text(f'repository = "repo"\n[guests.web]\nsource = "{guest.monitor}"\n')
    return path


def test_a_running_guest_is_saved(
    guest: Monitored, config: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """A run saves RAM of one moment with the device state, and the guest continues."""
    outcome = cli("backup", "run", config)
    outcome.ok()
    (path,) = (tmp_path / "repo" / "web").glob("*.snap")
    snapmig.restore(path, tmp_path / "ram", format="raw")

    assert tiny.check_image(tmp_path / "ram", LAYOUT).number >= 2
    assert tiny.wait_passes(guest, 2)


def test_the_first_save_needs_room_for_the_ram(guest: Monitored, shared_shm: Path) -> None:
    """The size of a running guest's RAM is taken from its files, without a pause."""
    expected = ((shared_shm / "ram").stat().st_blocks * 512, "the guest's RAM")

    web: Any = SimpleNamespace(source=guest.monitor, save={})
    assert expected_size((), Plan(None, ""), web, USUAL_WAIT) == expected


def test_a_guest_that_is_off_may_be_skipped(
    config: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    """If a guest is optional and its monitor is missing, that is a warning."""
    source = f"qmp:{tmp_path}/none"
    config.write_text(f'repository = "repo"\n[guests.web]\nsource = "{source}"\noptional = true\n')

    cli("backup", "run", config).warns()


@pytest.fixture(scope="module")
def private(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a running guest with memory of QEMU's own."""
    (shared_shm / "private").mkdir()
    with make_monitored(program, shared_shm / "private", private_memory()) as guest:
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture
def repository(private: Monitored, tmp_path: Path) -> Path:
    """Give a configuration with that guest."""
    (tmp_path / "repo").mkdir()
    path = tmp_path / "backup.toml"
    guest = f'[guests.web]\nsource = "{private.monitor}"\n'
    save = '[guests.web.save]\ncompression = "zstd"\n'
    path.write_text(f'repository = "repo"\nfull_every = 7\n{guest}{save}')
    return path


def back_up(config: Path, cli: Callable[..., Outcome], count: int) -> list[Path]:
    """Make so many backups of the guest, and return their snapshots, the oldest first."""
    for _ in range(count):
        cli("backup", "run", config).ok()
    return sorted((config.parent / "repo" / "web").glob("*.snap"))


def test_a_guest_with_private_memory(
    private: Monitored,
    repository: Path,
    program: str,
    shm: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> None:
    """Its backups come over channels, the second as a child, and go back into private memory."""
    first, second = back_up(repository, cli, 2)
    found = [snapmig.info(path) for path in (first, second)]
    assert [one.via for one in found] == ["multifd"] * 2
    assert [one.parent_id for one in found] == [None, found[0].snapshot_id]
    assert tiny.wait_passes(private, 2)
    state = ram_of(second, tmp_path)
    with make_monitored(program, shm, private_memory(), incoming=True) as guest:
        cli("backup", "restore", repository, "web", guest.monitor).ok()
        counted = tiny.wait_passes(guest, 2, before=0)

    assert tiny.goes_on(counted, state, LAYOUT)
