"""libvirt's daemon for one session, with directories of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.guests.qemu import find_qemu
from tests.support.guests.resume import LAYOUT
from tests.support.guests.tiny import guest as tiny
from tests.support.requirements import requires

NOBODY = 65534
"""libvirt serves a session, in directories of its own, to anybody but root."""
SECONDS = 60.0
OLDEST_FOR_QEMU_11 = 11
"""9.0 fails with QEMU 11.1 ("the cause is unknown")."""

DOMAIN = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>tiny</name>
  <memory unit='b'>{ram}</memory>
  {backing}
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='fd'/></os>
  <features><acpi/></features>
  <devices>
    <emulator>{program}</emulator>
    <disk type='file' device='floppy'>
      <driver name='qemu' type='raw'/>
      <source file='{sector}'/><target dev='fda' bus='fdc'/><readonly/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='{serial}'/><target port='0'/></serial>
  </devices>
  {monitor}
</domain>
"""
SHARED = """\
<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>
"""


MONITOR = """\
<qemu:commandline>
    <qemu:arg value='-qmp'/><qemu:arg value='unix:{monitor},server=on,wait=off'/>
  </qemu:commandline>
"""
"""A monitor besides libvirt's own."""


class Session:
    """libvirt's daemon for an ordinary user."""

    def __init__(self, folder: Path, image_format: str) -> None:
        self.folder = folder
        self._environment = {**os.environ, "HOME": str(folder)}
        for name in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"):
            self._environment[f"XDG_{name}"] = str(folder / name[:2])
        self._as_user = {"env": self._environment, "cwd": folder, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            self._as_user |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        config = folder / "CO" / "libvirt" / "qemu.conf"
        config.parent.mkdir(parents=True)
        (folder / "RU").mkdir()
        (folder / "memory").mkdir()
        settings = f'stdio_handler = "file"\nsave_image_format = "{image_format}"\n'
        config.write_text(f'{settings}memory_backing_dir = "{folder}/memory"\n')

    def __enter__(self) -> "Session":
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        with (self.folder / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                ["libvirtd"], stdout=log, stderr=log, start_new_session=True, **self._as_user
            )
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self.virsh("destroy", "tiny", check=False)
        finally:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(SECONDS)

    def virsh(self, *arguments: object, check: bool = True) -> str:
        """Run a command of libvirt's shell, once the daemon answers."""
        command = ["virsh", "--connect", "qemu:///session", *map(str, arguments)]
        deadline = time.monotonic() + SECONDS
        while True:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, **self._as_user
            )
            starting = "Failed to connect socket" in done.stderr
            if not starting or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    @property
    def uri(self) -> str:
        """Name it for other users than its own."""
        return f"qemu+unix:///session?socket={self.folder}/RU/libvirt/libvirt-sock"

    @property
    def daemon(self) -> int:
        """Its process."""
        return self._daemon.pid

    def state(self, name: str = "tiny") -> str:
        """Return a domain's state, as libvirt knows it."""
        return self.virsh("domstate", name).strip()

    def wait_passes(self, count: int) -> list[int]:
        """Wait until the guest has ended some passes; return all."""
        deadline = time.monotonic() + SECONDS
        serial = self.folder / "serial"
        while len(found := tiny.passes(serial.read_text() if serial.exists() else "")) < count:
            assert time.monotonic() < deadline, f"{found} in {SECONDS:g} s"
            time.sleep(0.05)
        return found


def require_libvirt() -> None:
    """Skip a test where there is no libvirt, or one that is too old for QEMU."""
    for tool in ("libvirtd", "virsh"):
        requires(tool)
    told = subprocess.run(["virsh", "--version"], capture_output=True, text=True, check=True).stdout
    major = int(find_qemu().version.partition(".")[0] or 0)
    if major > 10 and int(told.partition(".")[0]) < OLDEST_FOR_QEMU_11:
        pytest.skip(f"libvirt {told.strip()} starts no QEMU {major}")


def make_session(
    program: str, shm: Path, image_format: str, backing: str = "", *, monitor: bool = True
) -> Session:
    """
    Return a session with the definition of a guest, not yet begun.

    :param backing: SHARED, or none for private memory
    :param monitor: with a monitor of its own
    """
    require_libvirt()
    shm.chmod(0o711)
    folder = shm / "home"
    folder.mkdir()
    sector = tiny.write_sector(folder, LAYOUT)
    own = MONITOR.format(monitor=folder / "monitor") if monitor else ""
    places = {"sector": sector, "serial": folder / "serial", "program": program}
    places |= {"monitor": own, "backing": backing}
    (folder / "tiny.xml").write_text(DOMAIN.format(ram=LAYOUT.ram, **places))
    return Session(folder, image_format)
