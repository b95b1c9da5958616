"""QEMU's mapped-ram files."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.qemu_files import Block, Mapped


def seeds() -> list[bytes]:
    """Return files with small alignment, so that they are short."""
    two = [Block(pages={0: 1, 3: 2}), Block(b"pc.bios", 9 * 4096, {4: 9})]
    shared = [Block(left_out=True, gpa=0), Block(b"rom", pages={1: 1}, gpa=1 << 32)]
    return [
        Mapped([Block(pages={0: 1, 3: 2, 9: 3}, stale={5: 0xEE})], alignment=4096).build(),
        Mapped(two, alignment=4096).build(),
        Mapped(shared, capabilities=[b"mapped-ram", b"x-ignore-shared"], alignment=4096).build(),
    ]


def read(data: bytes, folder: Path) -> None:
    """Read a file."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", "mapped-ram")
