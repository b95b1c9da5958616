"""QEMU's classic migration streams as files."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.qemu_files import FLUSH, Block, Stream, data, device, part, zero

RAM = Block()
BIOS = Block(b"pc.bios", 7 * 4096)


def seeds() -> list[bytes]:
    """Return streams of several kinds."""
    return [
        Stream([part(data(0, 1, b"ram"), data(1, 2), zero(2), data(3, 3))], [RAM]).build(),
        Stream([part(data(5, 1, b"ram")), part(data(5, 9, b"ram"))], [RAM, BIOS]).build(),
        Stream([device(1), device(4), part(data(0, 1, b"ram"))], early=device(1)).build(),
        Stream([part(data(0, 1, b"ram"))], list_end=(FLUSH, 16), last=b"").build(),
        Stream([part()], [Block(gpa=0)], capabilities=[b"x-ignore-shared", b"multifd"]).build(),
    ]


def read(data: bytes, folder: Path) -> None:
    """Read a file, as named and as recognised."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", "qemu-stream")
