"""A directory with a guest, as users have one before them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import ram

MIB = 1 << 20
RAM = np.concatenate([ram.text(384), ram.zeros(896), ram.noise(256), ram.zeros(512)]).tobytes()
"""8 MiB: 1.5 of text, 3.5 of zeros, 1 of noise and 2 of zeros."""


@pytest.fixture
def guest(shm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory that has guest.ram, guest.xml and nothing else."""
    monkeypatch.chdir(shm)
    ram.write(shm / "guest.ram", RAM)
    (shm / "guest.xml").write_text("<domain/>\n")
    return shm
