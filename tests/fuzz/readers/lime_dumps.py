"""Dumps of LiME and AVML."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.lime_dumps import AVML, avml, lime


def seeds() -> list[bytes]:
    """Return dumps of both kinds, with ranges side by side and apart."""
    records = ((0x1000, b"x" * 5000), (0x8000, b"y" * 4096), (0x9000, b"z" * 70000))
    return [lime(*records), avml(*records), avml(*records[:2], plain=True)]


def read(data: bytes, folder: Path) -> None:
    """Read a file, by its own mark."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", "avml" if data.startswith(AVML) else "lime")
