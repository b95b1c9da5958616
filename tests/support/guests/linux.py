"""A Linux guest: Debian's cloud kernel, a small Debian system on a disk, and the workload."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.guests import kernel, packages
from tests.support.guests.qemu import Guest, GuestConfig

SMALL = ("python3", "sqlite3", "bash", "coreutils", "busybox-static")
LARGE = (*SMALL, "perl", "git", "gdb", "openssl", "nginx-light", "postgresql", "redis-server")
LARGE_FROM = 1 << 30
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
WORKLOAD = Path(__file__).with_name("workload.py")
READY = "snapmig-guest: ready"
MIB = 1 << 20


@dataclass(frozen=True)
class System:
    """Files to start a guest from, in the cache: its kernel, and the folder of its disk."""

    kernel: kernel.Kernel
    folder: Path

    @property
    def disk(self) -> Path:
        """The disk image, never written by a guest."""
        return self.folder / "disk.ext4"

    @property
    def busybox(self) -> Path:
        """The program to start the guest's system with."""
        return self.folder / "tree" / "usr" / "bin" / "busybox"


def package_names(ram: int) -> tuple[str, ...]:
    """Return the packages for a guest of a size; a larger guest has a larger system."""
    return LARGE if ram >= LARGE_FROM else SMALL


def recipe(ram: int) -> str:
    """Return a short text that changes whenever a guest would be made differently."""
    parts = (kernel.INIT, kernel.COMMAND_LINE, WORKLOAD.read_text(), *package_names(ram))
    return _digest(*parts, *LEFT_OUT)


def prepare(ram: int, cache: Path) -> System:
    """Return the system for a guest of a size, downloading the parts missing from the cache."""
    names = package_names(ram)
    folder = cache / f"system-{_digest(*names, *LEFT_OUT)}"
    kernel_folder = _cached(cache / "kernel", kernel.make_kernel)
    return System(
        kernel.Kernel(kernel_folder), _cached(folder, lambda root: _make_system(root, names))
    )


@contextmanager
def linux_guest(program: str, system: System, ram: int, memory: Path) -> Iterator[Guest]:
    """Start a Linux guest; it is at work inside the block, and ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="boot-") as name:
        initramfs = Path(name, "initramfs")
        kernel.write_initramfs(system.kernel, system.busybox, WORKLOAD, initramfs)
        config = GuestConfig(ram, memory, extra=boot_arguments(system, initramfs))
        with Guest(program, config) as guest:
            yield guest


def boot_arguments(system: System, initramfs: Path) -> tuple[str, ...]:
    """Return QEMU's arguments for a system."""
    disk = f"driver=raw,node-name=disk,read-only=on,file.driver=file,file.filename={system.disk}"
    boot = ("-kernel", str(system.kernel.image), "-initrd", str(initramfs))
    return (
        *("-cpu", "max"),
        *boot,
        *("-append", kernel.COMMAND_LINE),
        *("-blockdev", disk, "-device", "virtio-blk-pci,drive=disk"),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, made under another name so that it is complete or absent."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as name:
            new = Path(name, "new")
            new.mkdir()
            make(new)
            new.rename(folder)
    return folder


def _make_system(root: Path, names: tuple[str, ...]) -> None:
    tree = root / "tree"
    packages.merge_usr(tree)
    packages.unpack(packages.closure(names), tree)
    for name in LEFT_OUT:
        shutil.rmtree(tree / name, ignore_errors=True)
    for name in ("dev", "proc", "sys", "job", "tmp"):
        (tree / name).mkdir(exist_ok=True)
    _make_disk(tree, root / "disk.ext4")


def _make_disk(tree: Path, disk: Path) -> None:
    used = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    size = f"{used * 9 // 8 // MIB + 16}M"
    options = ("-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(tree))
    packages.run_tool("mke2fs", *options, str(disk), size)
