"""Facts about dumps of a Linux guest's snapshot, as debuggers and forensics tools open them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

import snapmig
from tests.support.guests import cores, debuggable
from tests.support.mounts import mounted, requires_fuse
from tests.support.requirements import lacks, requires

pytestmark = [pytest.mark.guest, pytest.mark.sweep, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def snapshot(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the snapshot of a Linux guest's RAM, which no QEMU wrote notes about."""
    del program
    return debuggable.save_linux(tmp_path_factory.mktemp("linux"))


@pytest.fixture(scope="module")
def dumps(snapshot: Path) -> Iterator[dict[str, Path]]:
    """Give an ELF core of it, a compressed dump, and the core in a mount."""
    requires_fuse()
    made = {form: snapshot.with_name(form) for form in ("elf", "kdump")}
    for form, path in made.items():
        snapmig.restore(snapshot, path, format=form)
    with mounted(snapshot, snapshot.with_name("mount")) as place:
        yield {**made, "mounted": place / "guest.elf"}


@pytest.fixture(scope="module")
def core(dumps: dict[str, Path]) -> Path:
    """Give the ELF core in the mount, made of nothing but what is read."""
    return dumps["mounted"]


def output(*command: object) -> str:
    """Return what a program prints."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True
    ).stdout


def banner(dump: Path) -> bytes:
    """Return the kernel's banner, read by drgn through the guest's page tables and kallsyms."""
    opened = drgn.Program()
    opened.set_core_dump(dump)
    symbols = load_vmlinux_kallsyms(opened)
    opened.register_symbol_finder("kallsyms", symbols, enable_index=0)
    return opened.read(opened.symbol("linux_banner").address, 40).split(b" ")[:3][-1]


@pytest.mark.parametrize("form", ["elf", "kdump", "mounted"])
def test_drgn_reads_the_kernel_in_a_dump(dumps: dict[str, Path], form: str) -> None:
    """It finds page tables and symbols through the note, and the banner is the kernel's."""
    assert banner(dumps[form]).endswith(b"-cloud-amd64")


def test_readelf_shows_the_note(core: Path) -> None:
    """One note, of the name that debuggers look for."""
    requires("readelf")
    assert output("readelf", "-n", core).count("VMCOREINFO") == 1


@pytest.mark.parametrize("form", ["elf", "kdump", "mounted"])
def test_makedumpfile_extracts_the_kernels_log(
    dumps: dict[str, Path], tmp_path: Path, form: str
) -> None:
    """The log buffer is found through the note."""
    requires("makedumpfile")
    log = tmp_path / "dmesg"
    output("makedumpfile", "--dump-dmesg", dumps[form], log)
    assert "Linux version" in log.read_text("utf-8", "replace").splitlines()[0]


@pytest.mark.parametrize("form", ["elf", "kdump", "mounted"])
def test_crash_recognises_a_dump(dumps: dict[str, Path], form: str) -> None:
    """It reads the kernel's release from the note; more would need the kernel's symbols."""
    requires("crash")
    assert output("crash", "--osrelease", dumps[form]).strip().endswith("-cloud-amd64")


def test_gdb_reads_the_ram_of_a_core(core: Path) -> None:
    """Memory is at its guest physical address: the banner stands where drgn found it."""
    requires("gdb")
    image = debuggable.IMAGE.read_bytes()
    at = image.index(b"Linux version 6")
    found = output("gdb", "-q", "-batch", "-ex", f"x/s {at}", "-c", core)
    assert "Linux version 6" in found


def test_volatility_finds_the_banner(core: Path, tmp_path: Path) -> None:
    """Its plugin for banners reads the core through its own ELF layer."""
    program = Path(sys.executable).with_name("vol")
    if not program.exists():
        lacks("volatility3")
    found = output(program, "-q", "--offline", "--cache-path", tmp_path, "-f", core, "banners")
    assert "Linux version 6" in found


@pytest.mark.parametrize(("form", "options"), [("kdump", "-l"), ("elf", "-c -F -d 1")])
def test_a_dump_of_makedumpfile_has_the_pages_of_the_core(
    dumps: dict[str, Path], tmp_path: Path, form: str, options: str
) -> None:
    """LZO made from our dump, and zlib flattened without pages of zeros made from our core."""
    requires("makedumpfile")
    words = ["makedumpfile", *options.split(), str(dumps[form])]
    with (tmp_path / "flat").open("wb") as file:
        target = file if "-F" in words else None
        words += [] if target else [str(tmp_path / "plain")]
        subprocess.run(words, stdout=target, stderr=subprocess.DEVNULL, check=True)
    dump = tmp_path / ("flat" if "-F" in words else "plain")
    snapmig.save(dump, tmp_path / "snap", compression="lz4")
    snapmig.restore(tmp_path / "snap", tmp_path / "core", format="elf")
    assert cores.ranges(tmp_path / "core") == cores.ranges(dumps["elf"])
    assert [*cores.differing(tmp_path / "core", dumps["elf"])] == []
