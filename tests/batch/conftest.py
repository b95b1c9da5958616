"""A directory with guests, and a batch's file beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ram
from tests.support.guests.versions import require_program

MIB = 1 << 20


@pytest.fixture(scope="session")
def program() -> str:
    """Give the program of QEMU, where it can run guests."""
    return require_program()


@pytest.fixture
def folder(shm: Path) -> Path:
    """Give a directory with five small images, a.ram to e.ram, and one for what is made."""
    for number, name in enumerate("abcde"):
        ram.write(shm / f"{name}.ram", ram.mixed(2 * MIB, number))
    (shm / "out").mkdir()
    return shm


@pytest.fixture
def write(folder: Path) -> Callable[[str], Path]:
    """Give a function that writes a batch's file."""

    def write(text: str) -> Path:
        (folder / "jobs.toml").write_text(text)
        return folder / "jobs.toml"

    return write
