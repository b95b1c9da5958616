"""Bytes of files that only exist while they are made."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path


def made_bytes(make: Callable[[Path], object]) -> bytes:
    """Return what a function writes to a path."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-", dir="/dev/shm") as folder:
        make(Path(folder) / "made")
        return (Path(folder) / "made").read_bytes()
