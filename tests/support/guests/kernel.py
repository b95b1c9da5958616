"""The guest's kernel and its first file system, from Debian's cloud package."""

import lzma
import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.guests import packages
from tests.support.guests.cpio import CpioWriter

PACKAGE = "linux-image-cloud-amd64"
# Modules for a disk, in the order of loading; built-in ones have no file.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
)
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr rdinit=/init"
INIT = """#!/busybox sh
/busybox mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1
for module in /modules/*; do /busybox insmod "$module"; done
/busybox mount -t ext4 -o ro /dev/vda /system
/busybox mount -t proc proc /system/proc
/busybox mount -t sysfs sys /system/sys
/busybox mount -t devtmpfs dev /system/dev
/busybox mount -t tmpfs -o size=95% job /system/job
/busybox cp /workload.py /system/job
export PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 TMPDIR=/job
/busybox chroot /system /usr/bin/python3 -I -S -B /job/workload.py
echo 'snapmig-guest: failed'
/busybox poweroff -f
"""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    root: Path

    @property
    def image(self) -> Path:
        """The file started by QEMU."""
        found = sorted((self.root / "boot").glob("vmlinuz-*"))
        if not found:
            raise packages.PackagesError(f"{PACKAGE} holds no kernel")
        return found[-1]

    @property
    def version(self) -> str:
        """The kernel's version, from its file's name."""
        return self.image.name.removeprefix("vmlinuz-")

    def modules(self) -> list[bytes]:
        """Return the modules for a disk, in the order of loading."""
        found = []
        for name in MODULES:
            for path in self.root.rglob(f"{name}.ko*"):
                content = path.read_bytes()
                found.append(lzma.decompress(content) if path.suffix == ".xz" else content)
        return found


def make_kernel(root: Path) -> None:
    """Download the concrete package behind Debian's cloud kernel and unpack it."""
    listing = packages.run_tool("apt-cache", "depends", "-i", PACKAGE)
    match = re.search(r"Depends: (linux-image-\S+)", listing)
    if match is None:
        raise packages.PackagesError(f"apt knows no {PACKAGE}")
    packages.unpack([match[1]], root)


def write_initramfs(kernel: Kernel, busybox: Path, workload: Path, path: Path) -> None:
    """Write the archive unpacked by the kernel, with `/init` to start."""
    with path.open("wb") as stream:
        archive = CpioWriter(stream)
        for name in ("dev", "modules", "system"):
            archive.folder(name)
        archive.character_device("dev/console", 5, 1)
        for number, module in enumerate(kernel.modules()):
            archive.file(f"modules/{number}.ko", module)
        archive.file("busybox", busybox.read_bytes(), 0o755)
        archive.file("init", INIT.encode(), 0o755)
        archive.file("workload.py", workload.read_bytes())
        archive.close()
