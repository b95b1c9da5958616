"""Fixtures for tests of mounts: a snapshot of two RAM blocks, mounted once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import snapmig
from snapmig.container.reader import SnapshotFile
from snapmig.geometry import RamBlock
from tests.support import ram
from tests.support.guests.versions import require_qemu
from tests.support.mounts import mounted, requires_fuse

PACKET = 64 << 10
SIZE = 32 * PACKET
BLOCKS = (RamBlock.at(0, SIZE, "low/../ram"), RamBlock.at(1 << 32, SIZE, "high"))


@dataclass(frozen=True)
class Mount:
    """A snapshot, its RAM, and the directory with its files."""

    snapshot: Path
    ram: bytes
    files: Path


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have each test need FUSE, and the mark ``qemu`` the version it names."""
    requires_fuse()
    for mark in item.iter_markers("qemu"):
        require_qemu(*mark.args)


def save(folder: Path, **options: object) -> tuple[Path, bytes]:
    """Save two RAM blocks at addresses, and return the snapshot and their bytes."""
    contents = [ram.mixed(SIZE, seed) for seed in (1, 2)]
    images = [
        (block, ram.write(folder / f"{number}.ram", content))
        for number, (block, content) in enumerate(zip(BLOCKS, contents, strict=True))
    ]
    attach = {"note/of\nmine": b"words", "..": b"up"}
    snapmig.save(
        images, folder / "s", packet_size=PACKET, jobs=1, attach=attach, arch="x86_64", **options
    )
    return folder / "s", b"".join(contents)


def damage(snapshot: Path, number: int) -> None:
    """Change the stored bytes of a packet, whose slot is as large as its pages."""
    with SnapshotFile(str(snapshot)) as file:
        place = file.superblock.data_offset + number * PACKET + 9
    with snapshot.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.fixture(scope="module")
def mount(shared_shm: Path) -> Iterator[Mount]:
    """Give a mounted snapshot."""
    requires_fuse()
    snapshot, content = save(shared_shm)
    with mounted(snapshot, shared_shm / "mnt") as files:
        yield Mount(snapshot, content, files)
