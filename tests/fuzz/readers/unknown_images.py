"""Files of any kind, to be recognised by their content."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.fuzz.readers import elf_cores, libvirt_images, mapped_ram, qemu_streams, snapshots


def seeds() -> list[bytes]:
    """Return a file of each kind, and starts of files that are no RAM."""
    known = [each.seeds()[0] for each in (elf_cores, libvirt_images, mapped_ram, qemu_streams)]
    others = (b"\x1f\x8b\x08", b"QFI\xfb", b"VMA\0", b"EMiL", b"\xfd7zXZ\0", b"text\n")
    return [*known, snapshots.seeds()[0], *(head.ljust(8192, b"\0") for head in others)]


def read(data: bytes, folder: Path) -> None:
    """Read a file of no named format."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", None)
