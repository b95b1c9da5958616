"""Facts about mounts that take writes."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
from collections import deque
from itertools import repeat
from pathlib import Path

import pytest

import snapmig
from tests.mount.conftest import SIZE, save
from tests.support import filesystems, program, ram
from tests.support.mounts import mounted

PAGE = 4096


def write_anywhere(file: Path, content: bytearray) -> None:
    """Write pieces of 1 to 9000 bytes into a file, and into what it should be then."""
    draw = random.Random(3)
    fd = os.open(file, os.O_WRONLY)
    try:
        for _ in range(60):
            at, size = draw.randrange(len(content) - 9000), draw.randint(1, 9000)
            piece = draw.randbytes(size)
            os.pwrite(fd, piece, at)
            content[at : at + size] = piece
        os.pwrite(fd, b"last", len(content) - 4)
        content[-4:] = b"last"
    finally:
        os.close(fd)


def test_writes_are_there_and_the_snapshot_stays(shm: Path) -> None:
    """Bytes written anywhere are read again, also after another mount, and no snapshot changes."""
    snapshot, before = save(shm)
    stored, content = snapshot.read_bytes(), bytearray(before)
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        write_anywhere(files / "guest.ram", content)
        assert (files / "guest.ram").read_bytes() == content
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        assert (files / "guest.ram").read_bytes() == content
        assert (files / "blocks" / "high").read_bytes() == content[SIZE:]
    assert snapshot.read_bytes() == stored


@pytest.mark.sweep
def test_overlays_are_small(shm: Path) -> None:
    """A page takes a page of the overlay, and its file is no larger on disk."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        with (files / "guest.ram").open("r+b") as file:
            file.write(b"x")
        assert ram.disk_bytes(shm / "over") <= 4 * PAGE


def test_an_increment_is_saved_from_it(shm: Path) -> None:
    """``save --parent`` of the written RAM stores what was written, in the parent's RAM blocks."""
    snapshot, before = save(shm)
    content = bytearray(before)
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        write_anywhere(files / "guest.ram", content)
        saved = program.run(
            "save", files / "guest.ram", shm / "child", "--parent", snapshot, "--json"
        ).json
    assert 60 <= saved["data_pages"] - saved["same_pages"] <= 60 * 4
    snapmig.restore(shm / "child", shm / "r", format="raw", jobs=1)
    assert (shm / "r").read_bytes() == content
    names = [
        [block.name for block in snapmig.info(each).blocks] for each in (snapshot, shm / "child")
    ]
    assert names[0] == names[1]


def test_shared_mappings_write(shm: Path) -> None:
    """Stores into a shared mapping reach the overlay, and other files of the same RAM."""
    snapshot, before = save(shm)
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        with (
            (files / "blocks" / "high").open("r+b") as file,
            mmap.mmap(file.fileno(), 0) as content,
        ):
            content[5000:5004] = b"here"
            content.flush()
        wanted = before[: SIZE + 5000] + b"here" + before[SIZE + 5004 :]
        assert (files / "guest.ram").read_bytes() == wanted


@pytest.mark.sweep
def test_holes_end_where_something_is_written(shm: Path) -> None:
    """A sparse copy has what was written into zero pages."""
    snapshot, before = save(shm)
    at = before.index(bytes(3 * PAGE)) // PAGE * PAGE + PAGE
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        with (files / "guest.ram").open("r+b") as file:
            file.seek(at)
            file.write(b"in a hole")
        subprocess.run(["cp", "--sparse=auto", files / "guest.ram", shm / "copy"], check=True)
    assert (shm / "copy").read_bytes() == before[:at] + b"in a hole" + before[at + 9 :]


def test_nothing_else_takes_writes(shm: Path) -> None:
    """Other files, new files and other sizes are refused."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over") as files:
        for refused in (
            lambda: os.open(files / "guest.elf", os.O_WRONLY),
            lambda: os.open(files / "new", os.O_WRONLY | os.O_CREAT),
            lambda: os.truncate(files / "guest.ram", 5),
            (files / "guest.ram").unlink,
            (files / "new").mkdir,
        ):
            with pytest.raises(OSError, match=r"Read-only|not permitted"):
                refused()


@pytest.mark.sweep
def test_foreign_overlays_are_refused(shm: Path) -> None:
    """Neither another snapshot's overlay is used, nor another file written over."""
    snapshot, _ = save(shm)
    snapmig.save(shm / "0.ram", shm / "other", jobs=1)
    with mounted(snapshot, shm / "mnt", "--overlay", shm / "over"):
        (shm / "other-mnt").mkdir()
        done = program.run("mount", snapshot, shm / "other-mnt", "--overlay", shm / "over")
        done.fails(2, "in use by another mount", lines=1)
    done = program.run("mount", shm / "other", shm / "mnt", "--overlay", shm / "over")
    done.fails(2, "of another snapshot", lines=1)
    content = (shm / "0.ram").read_bytes()
    done = program.run("mount", snapshot, shm / "mnt", "--overlay", shm / "0.ram")
    done.fails(2, "is not an overlay", lines=1)
    assert (shm / "0.ram").read_bytes() == content


@pytest.mark.sweep
def test_a_full_disk_is_an_error_of_the_writer(shm: Path, tmp_path: Path) -> None:
    """A write that the overlay has no room for fails with ENOSPC, and what was there stays."""
    snapshot, content = save(shm)
    with (
        filesystems.mounted("tmpfs", tmp_path / "small", "size=256K") as small,
        mounted(snapshot, shm / "mnt", "--overlay", small / "over") as files,
    ):
        with (
            (files / "guest.ram").open("r+b", buffering=0) as file,
            pytest.raises(OSError, match="No space left"),
        ):
            deque(map(file.write, repeat(bytes([1]) * PAGE)), maxlen=0)
        written = (files / "guest.ram").read_bytes()
    assert written.lstrip(b"\1") == content[len(content) - len(written.lstrip(b"\1")) :]
