"""Facts about mounted folders of snapshots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import snapmig
from tests.support import program, ram
from tests.support.mounts import mounted, server_of
from tests.support.processes import open_files

NAMES = [f"2026-11-{day:02}T00-00-00Z" for day in range(1, 13)]


def page(number: int) -> bytes:
    """Return a page of its own."""
    return bytes([number]) * 4096


@pytest.fixture(scope="module")
def repository(shared_shm: Path) -> Path:
    """Give a guest with twelve snapshots, among a lock, a link and other files."""
    folder = shared_shm / "backups"
    (folder / "web").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        image = ram.write(shared_shm / "ram", page(number) * 16)
        snapmig.save(image, folder / "web" / f"{name}.snap", format="raw", jobs=1)
    (folder / "web" / ".lock").touch()
    (folder / "notes.txt").write_text("no snapshot")
    (folder / "web" / "link.snap").symlink_to(f"{NAMES[0]}.snap")
    return folder


def test_guests_and_times_are_folders(repository: Path, shm: Path) -> None:
    """Guests, and their snapshots without the suffix, are folders; other files are left out."""
    with mounted(repository, shm / "mnt") as files:
        assert os.listdir(files) == ["web"]  # noqa: PTH208 - in no order
        assert sorted(os.listdir(files / "web")) == NAMES  # noqa: PTH208


def test_each_snapshot_is_read(repository: Path, shm: Path) -> None:
    """All have their own RAM, and those that nobody reads are closed again."""
    with mounted(repository, shm / "mnt") as files:
        for number, name in enumerate(NAMES):
            assert (files / "web" / name / "guest.ram").read_bytes() == page(number) * 16
        opened = open_files(server_of(files)).values()
        held = [each for each in opened if each.endswith(".snap")]
    assert 0 < len(set(held)) <= 8


@pytest.mark.sweep
def test_a_file_that_is_read_stays_open(repository: Path, shm: Path) -> None:
    """An open file is read on though many other snapshots were looked into."""
    with (
        mounted(repository, shm / "mnt") as files,
        (files / "web" / NAMES[0] / "blocks" / "ram").open("rb", buffering=0) as first,
    ):
        for name in NAMES[1:]:
            (files / "web" / name / "snapshot.json").read_bytes()
        assert first.read(4096) == page(0)
        first.close()


@pytest.mark.sweep
def test_new_snapshots_appear(repository: Path, shm: Path) -> None:
    """A snapshot saved after the mount is there, and one that is damaged is an error of its own."""
    with mounted(repository, shm / "mnt") as files:
        snapmig.save(
            ram.write(shm / "ram", page(99)), repository / "new.snap", format="raw", jobs=1
        )
        (repository / "bad.snap").write_bytes(b"no snapshot" * 1000)
        try:
            assert (files / "new" / "guest.ram").read_bytes() == page(99)
            with pytest.raises(OSError, match="Input/output"):
                os.stat(files / "bad")
        finally:
            (repository / "new.snap").unlink()
            (repository / "bad.snap").unlink()
    assert "bad.snap: " in (shm / "mnt.log").read_text()


def test_a_folder_is_not_mounted_inside_itself(repository: Path) -> None:
    """A server that would list its own mount is refused."""
    (repository / "empty").mkdir()
    done = program.run("mount", repository, repository / "empty")
    (repository / "empty").rmdir()
    done.fails(2, "is inside the folder that it would show", lines=1)
