"""Ways to start a guest of a snapshot: `snapmig run`, and QEMU with files of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import snapmig
from tests.bench.contestants import PYTHON
from tests.bench.machines import Machine
from tests.support.guests import migration
from tests.support.guests.migration import MAPPED_RAM, MULTIFD
from tests.support.guests.qemu import Guest
from tests.support.objects.proxy import Proxy

POLL_S = 0.002
ERRORS = "errors"
"""What a command of ours says, in its folder."""


@dataclass
class Bench:
    """Everything that the ways share."""

    machine: Machine
    folder: Path
    snapshot: Path
    mapped: Path
    plain: Path
    state: Path
    jobs: int
    packets: int
    url: str = ""
    proxy: Proxy | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """Whatever is to be cold."""
        return (self.snapshot, self.mapped, self.plain, self.state)

    def qemu(self, serial: Path, backend: str) -> list[str]:
        """Return the command of a QEMU with a memory backend, without what comes in."""
        config = self.machine.configure(None, ())
        return [
            *(self.machine.program, "-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-reboot", "-accel", config.accel, "-smp", str(config.cpus)),
            *("-object", f"{backend},id=ram,size={config.ram}"),
            *("-machine", f"{config.machine},memory-backend=ram", "-m", f"{config.ram >> 10}K"),
            *("-serial", f"file:{serial}", *config.extra),
        ]


Start = Callable[[Bench, str, Path], "subprocess.Popen[bytes] | Guest"]


def run_guest(
    words: Sequence[str], bench: Bench, path: str, folder: Path
) -> subprocess.Popen[bytes]:
    """Start `snapmig run`; in its words `{folder}` is its own, `{known}` that of all."""
    qemu = bench.qemu(folder / "serial", "memory-backend-memfd,share=on")
    options = [word.format(folder=folder, known=bench.folder) for word in words]
    command = [*PYTHON, "run", "-j", str(bench.jobs), *options, path, "--", *qemu]
    environment = {**os.environ, **bench.environment}
    with (folder / ERRORS).open("wb") as errors:
        return subprocess.Popen(command, stderr=errors, env=environment)


class _Plain(Guest):
    # A guest that tests drive, started by a command of ours.
    def __init__(self, bench: Bench, backend: str, folder: Path) -> None:
        super().__init__(bench.machine.program, bench.machine.configure(None, ()))
        self._command = bench.qemu(folder / "serial", backend)

    def arguments(self) -> list[str]:
        return [*self._command, "-incoming", "defer", "-qmp", f"unix:{self.folder / 'qmp'}"]

    def load(self, uri: str) -> None:
        self.execute("migrate-incoming", uri=uri)
        while self.execute("query-migrate").get("status") != "completed":
            time.sleep(POLL_S)
        if self.execute("query-status")["status"] != "running":
            self.cont()


def _load(bench: Bench, _path: str, folder: Path) -> Guest:
    guest = _Plain(bench, "memory-backend-memfd,share=on", folder)
    guest.start()
    migration.prepare(guest, (MAPPED_RAM, MULTIFD), multifd_channels=bench.jobs)
    guest.load(f"file:{bench.mapped}")
    return guest


def _map(bench: Bench, _path: str, folder: Path) -> Guest:
    (block,) = [each for each in snapmig.info(bench.plain).blocks if each.name == "ram"]
    backend = (
        f"memory-backend-file,mem-path={bench.plain},offset={block.offset},"
        "share=off,readonly=on,rom=off"
    )
    guest = _Plain(bench, backend, folder)
    guest.start()
    guest.load(f"file:{bench.state}")
    return guest


MOUNT = ("--mount", "{folder}/mnt")
NEW = ("--working-set", "{folder}/set")
KNOWN = ("--working-set", "{known}/mount-set")
SENT = ("--working-set", "{known}/postcopy-set")
FULLER = "run --postcopy --working-set of a mount"
"""From a slow store a guest asks for packets that come unasked from a disk, and so are not in the
set that postcopy records there."""
FILES: dict[str, tuple[str, Start]] = {
    "mapped-ram, QEMU's own load": ("mapped", _load),
    "uncompressed, mapped by QEMU": ("plain", _map),
    "run --no-postcopy": ("snapshot", partial(run_guest, ("--no-postcopy",))),
    "run --postcopy": ("snapshot", partial(run_guest, ("--postcopy",))),
    "run --postcopy --working-set": ("snapshot", partial(run_guest, ("--postcopy", *SENT))),
    FULLER: ("snapshot", partial(run_guest, ("--postcopy", *KNOWN))),
    "run --mount": ("snapshot", partial(run_guest, (*MOUNT, *NEW))),
    "run --mount --working-set": ("snapshot", partial(run_guest, (*MOUNT, *KNOWN))),
}
"""Ways with what they read; a mount without a working set tells which packets were touched."""
OBJECTS = tuple(name for name, (what, _) in FILES.items() if what == "snapshot")
