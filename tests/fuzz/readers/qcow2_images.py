"""Guests inside qcow2 images."""

from __future__ import annotations

from pathlib import Path

import snapmig
from snapmig.images.qcow2.image import open_saved_vm
from tests.fuzz.images import read_opened
from tests.support.qcow2_images import Disk, Snap
from tests.support.qemu_files import Block, Mapped, Stream, data, part, zero


def seeds() -> list[bytes]:
    """Return images of both versions, with clusters and subclusters."""
    state = Stream([part(data(0, 1, b"ram"), data(3, 2), zero(4))]).build()
    return [
        Disk([Snap(name=b"disk", id=b"2"), Snap(state)], bits=9).build(),
        Disk([Snap(state, holes=[2])], version=2).build(),
        Disk([Snap(state)], bits=14, extended=True).build(),
        Disk([Snap(Mapped([Block(pages={0: 1, 9: 2})], alignment=4096).build())]).build(),
    ]


def read(data: bytes, folder: Path) -> None:
    """List the snapshots of a file, and read one."""
    (folder / "f").write_bytes(data)
    snapmig.qcow2_info(folder / "f")
    read_opened(open_saved_vm(str(folder / "f"), "one"))
