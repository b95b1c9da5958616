"""Snapshots mounted by the program, and unmounted whatever happens."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import program
from tests.support.requirements import lacks, requires


def requires_fuse() -> None:
    """Skip a test where nothing can be mounted."""
    requires("fusermount3")
    if not Path("/dev/fuse").exists():
        lacks("/dev/fuse")


def is_mounted(directory: Path) -> bool:
    """Return True if something is mounted at a directory, as the kernel says."""
    return f" {directory} " in Path("/proc/self/mountinfo").read_text()


def server_of(directory: Path) -> int:
    """Return the pid of the server, from the name of the mount's source."""
    lines = Path("/proc/mounts").read_text().splitlines()
    source = next(line for line in lines if f" {directory} " in line)
    return int(source.partition("[")[2].partition("]")[0])


@contextmanager
def mounted(snapshot: object, directory: Path, *options: object, **running: Any) -> Iterator[Path]:
    """Mount a snapshot at a new directory for the length of a block, as its user does."""
    if not is_mounted(directory):  # what a killed server left
        directory.mkdir(exist_ok=True)
    program.run("mount", snapshot, directory, "--log", f"{directory}.log", *options, **running).ok()
    try:
        yield directory
        if is_mounted(directory):
            program.run("umount", directory).ok()
    finally:
        if is_mounted(directory):
            subprocess.run(["umount", "--lazy", "--force", directory], check=False)
