"""Destinations of restored pages: when the disk is told to begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snapmig.images import target
from snapmig.images.target import Store, TargetPlan, open_store

PAGES = np.ones(8192, np.uint8)


def opened(path: Path, *, to_disk: bool = True) -> Store:
    """Open a new file as a target."""
    path.touch()
    return open_store(TargetPlan(str(path), "image", 1 << 20, False, None, to_disk))


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offsets and lengths that the disk was asked to begin with."""
    asked: list[tuple[int, int]] = []

    def start(_fd: int, *part: Any) -> None:
        asked.append(part)

    monkeypatch.setattr(target, "start_writeback", start)
    return asked


def test_the_disk_begins_with_all_that_was_put(tmp_path, ranges):
    """The range is from the first to the last byte since the last time."""
    store = opened(tmp_path / "image")
    store.write(65536, PAGES)
    store.write(4096, PAGES)
    store.start_writing_back()
    store.write(1 << 20, PAGES)
    store.start_writing_back()
    assert ranges == [(4096, 65536 + 8192 - 4096), (1 << 20, 8192)]


def test_the_disk_begins_with_what_was_appended(tmp_path, ranges):
    """Appended bytes have their range, too."""
    store = opened(tmp_path / "image")
    for _ in range(2):
        store.append(PAGES)
    store.start_writing_back()
    assert ranges == [(0, 16384)]


@pytest.mark.parametrize("to_disk", [True, False])
def test_the_disk_is_left_alone(tmp_path, ranges, to_disk):
    """Nothing is asked for if nothing was put, or if nobody syncs the file at the end."""
    store = opened(tmp_path / "image", to_disk=to_disk)
    if not to_disk:
        store.write(0, PAGES)
    store.start_writing_back()
    assert not ranges
