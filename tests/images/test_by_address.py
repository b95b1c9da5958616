"""Facts about images with RAM at its guest physical addresses: new cores, and raw."""

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig import RamBlock, RamPiece
from snapmig.architectures import ARCHITECTURES
from snapmig.errors import UsageError
from tests.images.test_elf import HIGH, LOW, core, noise, ram, write
from tests.support.guests import cores
from tests.support.requirements import requires

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
FIVE = noise(5)
AT_LOW = (RamBlock.at(0, 5 * PAGE, "low"), LOW.data)
AT_HIGH = (RamBlock.at(4 * GIB, 3 * PAGE, "high"), HIGH.data)
ROM = (RamBlock("rom", PAGE), noise(1, 9))
SPLIT = (
    RamBlock("ram", 5 * PAGE, (RamPiece(0, 2 * PAGE, 0), RamPiece(2 * PAGE, 3 * PAGE, 4 * GIB))),
    FIVE,
)


def saved(directory: Path, *blocks: tuple[RamBlock, bytes], **options: Any) -> Path:
    """Save raw blocks, of an x86 guest by default."""
    files = []
    for number, (block, data) in enumerate(blocks):
        (directory / f"block{number}").write_bytes(data)
        files.append((block, directory / f"block{number}"))
    snapmig.save(files, directory / "snap", jobs=1, **{"arch": "x86_64", **options})
    return directory / "snap"


def restored(snapshot: Path, form: str = "elf", **options: Any) -> Path:
    """Return a new image by addresses, made from a snapshot."""
    image = snapshot.with_name("image")
    snapmig.restore(snapshot, image, jobs=1, format=form, force=True, **options)
    return image


def warnings(snapshot: Path, form: str = "elf", **options: Any) -> tuple[str, ...]:
    """Return the warnings of such a restore."""
    image = snapshot.with_name("image")
    return snapmig.restore(snapshot, image, jobs=1, format=form, force=True, **options).warnings


def test_blocks_become_segments_by_their_addresses(tmp_path):
    """Each block with an address is a segment; blocks without one are left out."""
    assert ram(restored(saved(tmp_path, AT_HIGH, ROM, AT_LOW))) == {
        0: LOW.data,
        4 * GIB: HIGH.data,
    }


def test_a_block_in_two_pieces_becomes_two_segments(tmp_path):
    """RAM below 4 GiB and above it is at the guest's addresses."""
    assert ram(restored(saved(tmp_path, SPLIT))) == {
        0: FIVE[: 2 * PAGE],
        4 * GIB: FIVE[2 * PAGE :],
    }


def test_a_piece_at_two_addresses_stands_at_both(tmp_path):
    """Firmware of a PC is below 1 MiB and below 4 GiB."""
    pieces = (RamPiece(PAGE, PAGE, MIB - PAGE), RamPiece(0, 2 * PAGE, 4 * GIB - 2 * PAGE))
    rom = (RamBlock("rom", 2 * PAGE, pieces), noise(2))
    assert ram(restored(saved(tmp_path, rom))) == {
        MIB - PAGE: noise(2)[PAGE:],
        4 * GIB - 2 * PAGE: noise(2),
    }


def test_a_part_without_address_is_in_no_segment(tmp_path):
    """RAM invisible to the guest has no place in a core."""
    pieces = (RamPiece(0, PAGE, 0), RamPiece(3 * PAGE, 2 * PAGE, 3 * PAGE))
    found = ram(restored(saved(tmp_path, (RamBlock("ram", 5 * PAGE, pieces), FIVE))))
    assert found == {0: FIVE[:PAGE], 3 * PAGE: FIVE[3 * PAGE :]}


def test_a_fresh_core_has_holes_where_pages_are_zero(tmp_path):
    """Its memory is aligned to whole pages of the file."""
    block = (RamBlock.at(0, 8 * MIB), noise(1) + bytes(8 * MIB - PAGE))
    assert restored(saved(tmp_path, block)).stat().st_blocks * 512 < MIB


def test_a_sparse_image_has_ram_at_its_addresses(tmp_path):
    """The offset of a byte of raw-by-address is its address, and the gap is a hole."""
    image = restored(saved(tmp_path, SPLIT, ROM), "raw-by-address")
    with image.open("rb") as file:
        low = file.read(2 * PAGE)
        file.seek(4 * GIB)
        assert low + file.read() == FIVE
    assert image.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("form", ["elf", "raw-by-address"])
def test_left_out_blocks_are_named(tmp_path, form):
    """A warning names each RAM block without an address."""
    (found,) = warnings(saved(tmp_path, AT_LOW, ROM), form)
    assert found == "RAM blocks without a known guest physical address are left out: 'rom'"


@pytest.mark.parametrize("form", ["elf", "raw-by-address"])
def test_nothing_is_left_out_without_a_word(tmp_path, form):
    """With all addresses known there is no warning."""
    assert warnings(saved(tmp_path, AT_LOW, AT_HIGH), form) == ()


@pytest.mark.parametrize("form", ["elf", "raw-by-address"])
@pytest.mark.parametrize("count", [1, 2])
def test_ram_of_unknown_address_is_refused(tmp_path, form, count):
    """Nothing is guessed, not even for a single block; a sentence names the remedy."""
    blocks = [(RamBlock("one", 5 * PAGE), LOW.data), (RamBlock("two", 3 * PAGE), HIGH.data)]
    snapshot = saved(tmp_path, *blocks[:count])
    with pytest.raises(UsageError, match=r"none is known of RAM block 'one'.*--address BLOCK="):
        restored(snapshot, form)


def test_a_core_of_unknown_processors_is_refused(tmp_path):
    """The header of a core names the architecture, and none is guessed."""
    snapshot = saved(tmp_path, AT_LOW, arch=None)
    with pytest.raises(UsageError, match="architecture, which is not known: --arch"):
        restored(snapshot)


@pytest.mark.parametrize("moment", ["save", "restore"])
@pytest.mark.parametrize("form", ["elf", "raw-by-address"])
def test_addresses_can_be_given(tmp_path, moment, form):
    """Addresses given by the user at a save or a restore are used, also for parts."""
    given = {"address": ["ram=1G", "ram@0x2000=0x100000000"], "arch": "aarch64"}
    if form == "raw-by-address" and moment == "restore":
        del given["arch"]
    block = (RamBlock("ram", 5 * PAGE), FIVE)
    before, after = (given, {}) if moment == "save" else ({}, given)
    image = restored(saved(tmp_path, block, **before), form, **after)
    places = ram(image) if form == "elf" else _words(image, GIB, 4 * GIB)
    assert places == {GIB: FIVE[: 2 * PAGE], 4 * GIB: FIVE[2 * PAGE :]}


def _words(image: Path, *starts: int) -> dict[int, bytes]:
    found = {}
    with image.open("rb") as file:
        for start, size in zip(starts, (2 * PAGE, 3 * PAGE), strict=True):
            file.seek(start)
            found[start] = file.read(size)
    return found


def test_given_addresses_go_before_those_of_a_core(tmp_path):
    """A saved core becomes a different one if the user gives other addresses."""
    snapmig.save(write(tmp_path, core(LOW, HIGH)), tmp_path / "snap", jobs=1)
    image = restored(tmp_path / "snap", address={"ram@0x0": "1G"})
    assert ram(image) == {GIB: LOW.data, 4 * GIB: HIGH.data}


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("raw", {"address": {"low": 0}}),
        ("raw", {"arch": "arm"}),
        (None, {"address": ["low=0"]}),
        ("mapped-ram", {"arch": "arm"}),
    ],
)
def test_addresses_are_refused_where_they_mean_nothing(tmp_path, form, options):
    """A raw file has no addresses."""
    snapshot = saved(tmp_path, AT_LOW)
    with pytest.raises(UsageError, match="are for avml, elf, kdump, "):
        restored(snapshot, form, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_readelf_sees_the_processors(tmp_path, name):
    """The header of a new core names machine, width and byte order of the guest."""
    requires("readelf")
    known = ARCHITECTURES[name]
    image = restored(saved(tmp_path, AT_LOW, arch=name))
    shown = subprocess.run(
        ["readelf", "-h", image], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    facts = dict(line.strip().split(":", 1) for line in shown.splitlines() if ":" in line)
    machines = {
        "x86_64": "X86-64", "i386": "80386", "aarch64": "AArch64", "arm": "ARM",
        "riscv64": "RISC-V", "riscv32": "RISC-V", "loongarch64": "LoongArch",
        "ppc64le": "PowerPC64", "s390x": "S/390",
    }  # fmt: skip
    assert machines[name] in facts["Machine"]
    assert facts["Class"].strip() == f"ELF{known.bits}"
    assert ("little" if known.little else "big") in facts["Data"]


@pytest.mark.parametrize("arch", ["x86_64", "arm", "s390x"])
def test_pyelftools_finds_each_page(tmp_path, arch):
    """Another reader finds the bytes of each segment at its address, in any form of header."""
    image = restored(saved(tmp_path, AT_LOW, (RamBlock.at(GIB, 3 * PAGE), HIGH.data), arch=arch))
    raw = image.read_bytes()
    assert {at: raw[place : place + stop - at] for at, stop, place in cores.loads(image)} == {
        0: LOW.data,
        GIB: HIGH.data,
    }


def test_a_guest_of_32_bits_with_ram_above_4_gib_has_a_core_of_64(tmp_path):
    """Addresses that 32 bits do not hold need wider headers, as in QEMU's own dumps."""
    image = restored(saved(tmp_path, AT_LOW, AT_HIGH, arch="arm"))
    width, machine = struct.unpack_from("<4xB13xH", image.read_bytes())
    assert (width, machine) == (2, 40)
    assert ram(image) == {0: LOW.data, 4 * GIB: HIGH.data}


def test_readelf_sees_the_segments(tmp_path):
    """The GNU tools read a new core without a complaint."""
    requires("readelf")
    path = restored(saved(tmp_path, AT_HIGH, AT_LOW))

    done = subprocess.run(
        ["readelf", "-hlW", path], check=True, capture_output=True, text=True, timeout=60
    )

    lines = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["LOAD"]]
    assert [[int(word, 16) for word in line[1:6]] for line in lines] == [
        [0x1000, 0, 0, 0x5000, 0x5000],
        [0x6000, 4 * GIB, 4 * GIB, 0x3000, 0x3000],
    ]
    assert "CORE (Core file)" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arch", "gdb"),
    [("x86_64", "gdb"), ("aarch64", "gdb-multiarch"), ("arm", "gdb-multiarch"), ("i386", "gdb")],
)
def test_gdb_reads_memory_of_a_new_core(tmp_path, arch, gdb):
    """A debugger finds words of RAM at their addresses."""
    requires(gdb)
    start = 4 * GIB if arch in ("x86_64", "aarch64") else GIB
    upper = (RamBlock.at(start, 3 * PAGE), HIGH.data)
    path = restored(saved(tmp_path, upper, AT_LOW, arch=arch))

    shown = subprocess.run(
        [gdb, "-nx", "-batch", "-ex", "x/1xg 0x3010", "-ex", f"x/1xg {start + 0x1008}", "-c", path],
        check=True, capture_output=True, text=True, timeout=100,
    ).stdout  # fmt: skip

    assert f"0x3010:\t{int.from_bytes(LOW.data[0x3010:0x3018], 'little'):#018x}" in shown
    word = int.from_bytes(HIGH.data[0x1008:0x1010], "little")
    assert f"{start + 0x1008:#x}:\t{word:#018x}" in shown


def test_any_number_of_jobs_makes_the_same_image(tmp_path):
    """Workers placing pages by address do not disturb each other."""
    parts = tuple(RamPiece(at * MIB, MIB, (9 - at) * 3 * MIB) for at in range(8))
    snapshot = saved(tmp_path, (RamBlock("ram", 8 * MIB, parts), noise(2048)))
    made = set()
    for jobs in (1, 3):
        snapmig.restore(snapshot, tmp_path / "image", jobs=jobs, format="elf", force=True)
        made.add((tmp_path / "image").read_bytes())
    assert len(made) == 1
