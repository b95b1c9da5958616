"""Facts about guests that a real QEMU saved inside a qcow2 image, with ``savevm``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from tests.support.guests.resume import LAYOUT, goes_on, make
from tests.support.guests.tiny import guest as tiny
from tests.support.outcome import Outcome
from tests.support.requirements import requires
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

FORMS = {
    "plain": "cluster_size=64k",
    "small clusters": "cluster_size=512",
    "large clusters": "cluster_size=2M",
    "version 2": "compat=0.10",
    "subclusters": "extended_l2=on,cluster_size=16k",
    "lazy counts": "lazy_refcounts=on",
}


def saved_disk(program: str, folder: Path, form: str) -> tuple[Path, str]:
    """Return an image with two snapshots of a guest, and what a save says while it runs."""
    requires("qemu-img")
    disk = folder / "disk.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", FORMS[form], str(disk), "256M"]
    subprocess.run(create, check=True)
    drive = ("-drive", f"file={disk},if=none,id=disk")
    with make(program, folder, extra=drive) as guest:
        for name in ("first", "second"):
            tiny.wait_passes(guest, 2)
            guest.execute("human-monitor-command", command_line=f"savevm {name}")
        with pytest.raises(snapmig.SnapmigError) as refused:
            snapmig.save(disk, folder / "snap", qcow2_snapshot="first")
    return disk, refused.value.message


@pytest.mark.parametrize("form", sweep(FORMS, lambda form: form == "plain"))
def test_a_guest_leaves_its_image(program: str, shm: Path, form: str) -> None:
    """Every page is right, and QEMU continues the guest from the restored stream."""
    disk, words = saved_disk(program, shm, form)
    snapmig.save(disk, shm / "snap", qcow2_snapshot="first", jobs=2)
    snapmig.restore(shm / "snap", shm / "ram", block="ram", jobs=2)
    state = tiny.check_image(shm / "ram", LAYOUT)
    snapmig.restore(shm / "snap", shm / "stream", format="qemu-stream", jobs=2)
    assert goes_on(program, shm, f"exec:cat {shm / 'stream'}", state)
    assert words.startswith("the image is in use by a QEMU that writes to it")


def test_a_guest_in_mapped_ram_leaves_its_image(program: str, shm: Path) -> None:
    """So does a guest saved with mapped-ram, in a QEMU that can do that: 11 and newer."""
    requires("qemu-img")
    disk = shm / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "256M"], check=True)
    with make(program, shm, extra=("-drive", f"file={disk},if=none,id=disk")) as guest:
        newest = guest.version >= (11, 0)
        tiny.wait_passes(guest, 2)
        if newest:
            mapped = {"capability": "mapped-ram", "state": True}
            guest.execute("migrate-set-capabilities", capabilities=[mapped])
        guest.execute("human-monitor-command", command_line="savevm one")
    result = snapmig.save(disk, shm / "snap", qcow2_snapshot="one", jobs=2)
    assert result.format == ("mapped-ram" if newest else "qemu-stream")
    snapmig.restore(shm / "snap", shm / "ram", block="ram", jobs=2)
    state = tiny.check_image(shm / "ram", LAYOUT)
    snapmig.restore(shm / "snap", shm / "file", jobs=2)
    uri = f"file:{shm / 'file'}" if newest else f"exec:cat {shm / 'file'}"
    assert goes_on(program, shm, uri, state, ["mapped-ram"] if newest else [])


def test_snapshots_are_those_of_qemu_img(
    program: str, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """``info`` lists what qemu-img lists."""
    disk, _ = saved_disk(program, shm, "plain")
    command = ["qemu-img", "info", "--output=json", str(disk)]
    listed = json.loads(subprocess.run(command, stdout=-1, check=True).stdout)
    shown = cli("info", "--json", disk).json
    assert [(each["id"], each["name"], each["vm_state_size"]) for each in shown["snapshots"]] == [
        (each["id"], each["name"], each["vm-state-size"]) for each in listed["snapshots"]
    ]
