"""Facts about mounts of incremental and sealed snapshots."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import snapmig
from tests.support import cloud_hypervisor, firecracker, program, ram
from tests.support.mounts import is_mounted, mounted, server_of
from tests.support.secrets import write_keys
from tests.support.sweep import sweep

RAM = ram.mixed(4 << 20)
CHANGED = bytes(5000) + RAM[5000:-1] + b"!"


@pytest.mark.parametrize("deltas", sweep([True, False], lambda deltas: deltas))
def test_an_increment_is_read_with_its_parent(shm: Path, deltas: bool) -> None:
    """Pages of the parent, changed ones and differences make the RAM of the younger."""
    for name, content in (("old", RAM), ("new", CHANGED)):
        ram.write(shm / f"{name}.ram", content)
    snapmig.save(shm / "old.ram", shm / "old", jobs=1)
    snapmig.save(shm / "new.ram", shm / "new", jobs=1, parent=shm / "old", deltas=deltas)
    with mounted(shm / "new", shm / "mnt") as files:
        assert (files / "guest.ram").read_bytes() == CHANGED


@pytest.mark.sweep
def test_a_missing_parent_is_an_error_before_anything_is_mounted(shm: Path) -> None:
    """Without the parent there is no mount, and a sentence."""
    for name, content in (("old", RAM), ("new", CHANGED)):
        ram.write(shm / f"{name}.ram", content)
    snapmig.save(shm / "old.ram", shm / "old", jobs=1)
    snapmig.save(shm / "new.ram", shm / "new", jobs=1, parent=shm / "old")
    (shm / "old").unlink()
    (shm / "mnt").mkdir()
    program.run("mount", shm / "new", shm / "mnt").fails(1, "parent", lines=1)
    assert not is_mounted(shm / "mnt")


@pytest.mark.parametrize("how", sweep(["encrypt", "sign"], lambda how: how == "encrypt"))
def test_a_sealed_snapshot_opens_with_its_key(shm: Path, how: str) -> None:
    """With the key the files are those of a plain one, and another key is refused."""
    write_keys(shm)
    image = ram.write(shm / "ram", RAM)
    keys = snapmig.Keys(key_file=[str(shm / "key")])
    snapmig.save(image, shm / "s", jobs=1, keys=keys, attach={"a": b"secret"}, **{how: True})
    with mounted(shm / "s", shm / "mnt", "--key-file", shm / "key") as files:
        assert (files / "guest.ram").read_bytes() == RAM
        assert (files / "attachments" / "a").read_bytes() == b"secret"
    refused = program.run("mount", shm / "s", shm / "mnt", "--key-file", shm / "other")
    refused.fails(1, lines=1)


@pytest.mark.sweep
def test_memory_is_bounded_by_the_cache(shm: Path) -> None:
    """A server that has handed out 64 MiB with a cache of 2 MiB has kept no more than that."""
    image = ram.write(shm / "ram", np.tile(ram.noise(256), (64, 1)))
    snapmig.save(image, shm / "s", jobs=2, compression="none")
    with mounted(shm / "s", shm / "mnt", "--cache", "2M", "--json") as files:
        status = Path(f"/proc/{server_of(files)}/status")
        before = _resident(status)
        assert (files / "guest.ram").read_bytes() == image.read_bytes()
        assert _resident(status) - before < 32 << 20


def _resident(status: Path) -> int:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


def test_cloud_hypervisor_has_its_directory(shm: Path) -> None:
    """A snapshot directory comes back whole, and is recognised when it is saved again."""
    tree = cloud_hypervisor.state([(0, 2 << 20), (1 << 32, 1 << 20)])
    cloud_hypervisor.make(shm / "ch", tree)
    (shm / "ch" / "memory-ranges").write_bytes(ram.mixed(3 << 20))
    snapmig.save(shm / "ch", shm / "s", jobs=1)
    with mounted(shm / "s", shm / "mnt") as files:
        subprocess.run(["diff", "-r", shm / "ch", files / "cloud-hypervisor"], check=True)
        assert snapmig.save(files / "cloud-hypervisor", shm / "t", jobs=1).format == (
            "cloud-hypervisor"
        )


@pytest.mark.sweep
def test_firecracker_has_its_pair(shm: Path) -> None:
    """Memory file and vmstate come back, and are recognised when they are saved again."""
    (shm / "fc").mkdir()
    memory = firecracker.memory(shm / "fc" / "memory")
    (shm / "fc" / "vmstate").write_bytes(firecracker.vmstate())
    snapmig.save(memory, shm / "s", jobs=1)
    with mounted(shm / "s", shm / "mnt") as files:
        subprocess.run(["diff", "-r", shm / "fc", files / "firecracker"], check=True)
        assert snapmig.save(files / "firecracker", shm / "t", jobs=1).format == "firecracker"
