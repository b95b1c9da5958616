"""Files with what a guest asked for first."""

from __future__ import annotations

from pathlib import Path

from snapmig.geometry import Geometry, RamBlock
from snapmig.operations.runs.working_set import load_working_set, write_working_set
from tests.support.temporary import made_bytes

GEOMETRY = Geometry((RamBlock("ram", 1 << 20), RamBlock("rom", 5000)), 64 << 10)


def seeds() -> list[bytes]:
    """Return a file."""
    return [made_bytes(lambda path: write_working_set(path, GEOMETRY, (3, 1, 16)))]


def read(data: bytes, folder: Path) -> None:
    """Read a file."""
    (folder / "w").write_bytes(data)
    for number in load_working_set(folder / "w", GEOMETRY) or ():
        GEOMETRY.place(number)
