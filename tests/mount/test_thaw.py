"""Facts about mounts read whole, so that guests need them no longer."""

from __future__ import annotations

import json
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import snapmig
from snapmig.operations import thaw as thawing
from tests.mount.conftest import SIZE, damage, save
from tests.support import program
from tests.support.json_fields import documented
from tests.support.mounts import mounted, server_of


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("file", "part"), [("", "blocks/high"), ("guest.ram", "guest.ram")])
def test_needs_neither_server_nor_snapshot(shm: Path, file: str, part: str) -> None:
    """What was thawed is right with the server stopped and the snapshot overwritten."""
    snapshot, content = save(shm)
    with mounted(snapshot, shm / "mnt") as files:
        program.run("thaw", files / file, "-j", 2).ok()
        with snapshot.open("r+b") as lost:
            lost.write(bytes(snapshot.stat().st_size))
        with (
            (files / part).open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as found,
            stopped(server_of(files)),
        ):
            assert found[:] == (content if file else content[SIZE:])


def test_tells_what_was_read(shm: Path) -> None:
    """The result has the path and the bytes of all blocks, and the documented fields."""
    snapshot, content = save(shm)
    with mounted(snapshot, shm / "mnt") as files:
        done = program.run("thaw", "--json", files)
    found = json.loads(done.out)
    assert (found["path"], found["size"]) == (str(shm / "mnt"), len(content))
    assert set(found) - {"message_type"} == documented()["thaw"]


def test_tells_its_progress(shm: Path) -> None:
    """A callback gets the bytes read, all of them in the end."""
    snapshot, content = save(shm)
    seen: list[snapmig.Progress] = []
    with mounted(snapshot, shm / "mnt") as files:
        snapmig.thaw(files, progress=seen.append)
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (len(content), len(content))


def test_a_damaged_packet(shm: Path) -> None:
    """Memory that can't be read is an error with the place, not a mount that may go."""
    snapshot, _ = save(shm)
    damage(snapshot, 40)
    with mounted(snapshot, shm / "mnt") as files:
        program.run("thaw", files).fails(1, "can't be read at", "the mount's log", lines=1)


def test_not_a_mount(shm: Path) -> None:
    """A directory where nothing is mounted is an error of usage."""
    program.run("thaw", shm).fails(2, "neither a mounted snapshot nor a file of one", lines=1)


def test_a_tree_of_snapshots(shm: Path) -> None:
    """A mount of several snapshots is not read as a whole."""
    (shm / "all").mkdir()
    save(shm)[0].rename(shm / "all" / "guest.snap")
    with mounted(shm / "all", shm / "mnt") as files:
        program.run("thaw", files).fails(2, "shows several snapshots", lines=1)


def test_memory_is_too_small(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel can't keep all of it, the user is told."""
    snapshot, _ = save(shm)
    monkeypatch.setattr(thawing, "_available", lambda: 1 << 20)
    with mounted(snapshot, shm / "mnt") as files:
        (warning,) = snapmig.thaw(files).warnings
    assert warning.startswith("the host has 1.0 MiB of memory left")
