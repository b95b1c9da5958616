"""Snapshots: verified, read at random, and restored with all that is lost left out."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import snapmig
from snapmig.errors import SnapmigError
from snapmig.operations.runs.read import Reading
from tests.fuzz.checksums import repair_snapshot
from tests.support.damage.judge import run_here

GOLDEN = Path(__file__).parents[2] / "golden"
LARGEST_SEED = 40_000
MOST_SEEDS = 40
MOST_RAM = 64 << 20


@cache
def seeds() -> list[bytes]:
    """Return the golden files that are small, good and bad."""
    found = [
        gzip.decompress(path.read_bytes())
        for kind in ("good", "bad")
        for path in sorted((GOLDEN / kind).glob("*.gz"))
    ]
    small = [raw for raw in found if 0 < len(raw) <= LARGEST_SEED]
    return small[:: -(-len(small) // MOST_SEEDS)]


repair = repair_snapshot


@contextmanager
def without_workers() -> Iterator[None]:
    """Do all work in this process."""
    real = Reading.run
    Reading.run = run_here  # type: ignore[method-assign]
    try:
        yield
    finally:
        Reading.run = real  # type: ignore[method-assign]


def read(data: bytes, folder: Path) -> None:
    """Read a file in all ways."""
    path = folder / "s"
    path.write_bytes(data)
    with suppress(SnapmigError):
        snapmig.info(path)
    with snapmig.open(path) as opened:
        size = len(opened)
    if size > MOST_RAM:  # a sparse giant is right, and takes long
        return
    with without_workers():
        found = snapmig.verify(path)
        _attempt(snapmig.restore, path, folder / "kept", keep_going=True)
        _attempt(snapmig.restore, path, folder / "r")
        if not found.ok and (folder / "r").exists() and "attachment" not in found.problems[0]:
            _same(path, folder / "r")
        _attempt(snapmig.restore, path, folder / "q", for_qemu=True)
        for name in ("mapped-ram", "qemu-stream", "libvirt", "elf", "firecracker"):
            _attempt(snapmig.restore, path, folder / name, format=name)


def _attempt(work: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with suppress(SnapmigError):
        work(*arguments, **options)


def _same(path: Path, image: Path) -> None:
    # Random access goes another way through the code, and must come to the same contents.
    with suppress(SnapmigError), snapmig.open(path) as opened:
        if opened.read(0, len(opened)) != image.read_bytes():
            raise ValueError("restore and random access differ")
