"""Facts about the files of a mounted snapshot; restores, cp, cmp and gdb are the judges."""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
import subprocess
from pathlib import Path

import pytest

import snapmig
from tests.mount.conftest import PACKET, SIZE, Mount
from tests.support import program
from tests.support.requirements import requires

FORMS = {"guest.ram": "raw", "guest.by-address": "raw-by-address", "guest.elf": "elf"}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_what_a_restore_writes(mount: Mount, shm: Path, name: str) -> None:
    """Each form of the RAM is the restored file, byte for byte."""
    size = (mount.files / name).stat().st_size
    snapmig.restore(mount.snapshot, shm / "r", format=FORMS[name], jobs=1)
    assert (shm / "r").stat().st_size == size
    with (mount.files / name).open("rb") as file, (shm / "r").open("rb") as restored:
        for at in (0, SIZE - 5, size - 3 * PACKET - 1):  # by address most of it is a hole
            file.seek(at)
            restored.seek(at)
            assert file.read(4 * PACKET) == restored.read(4 * PACKET)


def test_blocks_have_files(mount: Mount) -> None:
    """Each RAM block has a file of its own; a name with slashes leads nowhere else."""
    found = {file.name: file.read_bytes() for file in (mount.files / "blocks").iterdir()}
    assert found == {"low%2F..%2Fram": mount.ram[:SIZE], "high": mount.ram[SIZE:]}


def test_attachments_have_files(mount: Mount) -> None:
    """Attachments are files, whatever their names are."""
    found = {file.name: file.read_bytes() for file in (mount.files / "attachments").iterdir()}
    assert found == {"note%2Fof%0Amine": b"words", "%2E%2E": b"up"}


def test_facts_are_those_of_info(mount: Mount) -> None:
    """``snapshot.json`` is the line that ``info --json`` prints."""
    printed = program.run("info", "--json", mount.snapshot).json
    assert json.loads((mount.files / "snapshot.json").read_bytes()) == printed


def test_forms_that_can_not_be_made_are_missing(mount: Mount) -> None:
    """Without a device state there is no file for QEMU, nor one for Firecracker."""
    names = {"attachments", "blocks", "snapshot.json", *FORMS}
    assert {file.name for file in mount.files.iterdir()} == names


def test_copies_are_as_sparse_as_restores(mount: Mount, shm: Path) -> None:
    """``cp`` finds the same holes as in a restored file, and no others."""
    snapmig.restore(mount.snapshot, shm / "r", format="raw", jobs=1)
    subprocess.run(["cp", "--sparse=auto", mount.files / "guest.ram", shm / "c"], check=True)
    subprocess.run(["cmp", shm / "r", shm / "c"], check=True)
    used = [(shm / name).stat().st_blocks for name in "rc"]
    assert used[0] == used[1] < 2 * SIZE // 512


def test_holes_are_found_from_any_place(mount: Mount) -> None:
    """``lseek`` gives the next zero page, and the next other one, from everywhere."""
    pages = [mount.ram[at : at + 4096].strip(b"\0") != b"" for at in range(0, 2 * SIZE, 4096)]
    fd = os.open(mount.files / "guest.ram", os.O_RDONLY)
    try:
        for at in range(0, 2 * SIZE, 5 * 4096 + 7):
            later = [n * 4096 for n in range(at // 4096, len(pages)) if not pages[n]]
            found = os.lseek(fd, at, os.SEEK_HOLE)
            assert found == max(at, next(iter(later), 2 * SIZE))
    finally:
        os.close(fd)


def test_only_the_owner_may_read(mount: Mount) -> None:
    """Folders have mode 0500 and files 0400, with the snapshot's time."""
    facts = [path.stat() for path in (mount.files, mount.files / "guest.ram")]
    assert [stat.S_IMODE(each.st_mode) for each in facts] == [0o500, 0o400]
    assert abs(facts[1].st_mtime - mount.snapshot.stat().st_mtime) < 60


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE], ids=["shared", "private"])
def test_maps(mount: Mount, flags: int) -> None:
    """Mappings have the RAM's bytes, and private ones take writes."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if flags == mmap.MAP_PRIVATE else 0)
    with (
        (mount.files / "guest.ram").open("rb") as file,
        mmap.mmap(file.fileno(), 0, flags, protection) as content,
    ):
        assert content[: 2 * SIZE] == mount.ram
        if flags == mmap.MAP_PRIVATE:
            content[5:9] = b"mine"
            assert content[4:10] == mount.ram[4:5] + b"mine" + mount.ram[9:10]


def test_takes_no_writes(mount: Mount) -> None:
    """Opening for writing, and making a file, fail as on any read-only file system."""
    for name in ("guest.ram", "new"):
        with pytest.raises(OSError, match="Read-only") as caught:
            os.open(mount.files / name, os.O_WRONLY | os.O_CREAT)
        assert caught.value.errno == errno.EROFS


def test_core_is_read_by_gdb(mount: Mount) -> None:
    """A debugger shows the bytes at a guest physical address above 4 GiB."""
    requires("gdb")
    address = (1 << 32) + SIZE - 8
    core = mount.files / "guest.elf"
    shown = program.call(["gdb", "-q", "-batch", "-c", core, "-ex", f"x/8xb {address:#x}"]).out
    wanted = "\t".join(f"0x{byte:02x}" for byte in mount.ram[-8:])
    assert wanted in shown
