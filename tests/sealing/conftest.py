"""A directory with a guest, a newer state of it, and keys of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import ram
from tests.support.secrets import write_keys

PAGES = np.concatenate([ram.text(160), ram.zeros(96), ram.noise(64), ram.zeros(192)])
"""2 MiB in four packets of 512 KiB: text, text and zeros, noise and zeros, zeros."""


def changed(pages: np.ndarray, seed: int) -> np.ndarray:
    """Return a copy of which a whole page, a part of one and a page of zeros are others."""
    found = pages.copy()
    found[seed] = ram.noise(1, seed)[0]
    found[20 + seed, :100] = seed
    found[300 + seed] = ram.text(1, seed)[0]
    return found


@pytest.fixture
def place(shm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory with three states of a guest, and keys."""
    monkeypatch.chdir(shm)
    write_keys(shm)
    pages = PAGES
    for number in range(3):
        ram.write(shm / f"guest{number}.ram", pages)
        pages = changed(pages, number + 1)
    return shm
