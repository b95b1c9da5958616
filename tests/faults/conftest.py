"""Work long enough to be disturbed, and the possible traces of a disturbed run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import snapmig
from tests.support import filesystems, ram

BIG_PAGES = 128 << 8


@pytest.fixture(scope="session")
def session_shm() -> Iterator[Path]:
    """Give a directory in shared memory for the whole session."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def big(session_shm: Path) -> Path:
    """Give an image of 128 MiB of text, a second's work for two workers."""
    return ram.write(session_shm / "big", np.tile(ram.text(1024), (BIG_PAGES // 1024, 1)))


@pytest.fixture(scope="session")
def big_snapshot(session_shm: Path, big: Path) -> Path:
    """Give a snapshot of the big image."""
    snapmig.save(big, session_shm / "big.snap")
    return session_shm / "big.snap"


@pytest.fixture
def own_big(shm: Path, big: Path) -> Path:
    """Give a writable copy of the big image."""
    (shm / "own").mkdir()
    (shm / "own" / "image").write_bytes(big.read_bytes())
    return shm / "own" / "image"


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function to mount a filesystem in memory of a size."""
    with ExitStack() as stack:
        yield lambda size: stack.enter_context(
            filesystems.mounted("tmpfs", tmp_path / "small", f"size={size}")
        )
