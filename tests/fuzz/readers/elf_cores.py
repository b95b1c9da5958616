"""ELF cores."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.elf_cores import Core, Segment, noise


def seeds() -> list[bytes]:
    """Return cores of both widths and byte orders."""
    segments = (Segment(0, noise(2)), Segment(1 << 20, noise(1, 2), memsz=1 << 16))
    twice = (Segment(0, noise(1)), Segment(4096, filesz=4096, offset=0), Segment(0, b"x" * 300))
    return [
        Core(segments).build(),
        Core(segments, width=32, order=">").build(),
        Core(twice, many=True).build(),
        Core(segments, order=">").build(),
    ]


def read(data: bytes, folder: Path) -> None:
    """Read a file."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", "elf")
