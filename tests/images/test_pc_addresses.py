"""Facts about PCs in migration files: addresses of RAM from the CMOS memory of the clock."""

import struct

import pytest

from snapmig.architectures import ARCHITECTURES
from snapmig.geometry import RamBlock, RamPiece
from snapmig.images.formats import open_image
from snapmig.images.qemu.addresses import place_pc_ram
from snapmig.images.qemu.state import QemuBlock, VmState
from tests.support.qemu_files import (
    Block,
    Mapped,
    Stream,
    data,
    device,
    ending,
    footer,
    part,
    ram_end,
)

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
ROMS = {"vga.vram": 16 * MIB, "pc.bios": 256 * KIB, "/rom@etc/acpi/tables": 128 * KIB}


def cmos(below: int, above: int = 0, **other: int) -> bytes:
    """Return CMOS memory as read by a PC's firmware, SeaBIOS and OVMF."""
    content = bytearray(128)
    struct.pack_into("<H", content, 0x15, 640)
    for at in (0x17, 0x30):
        struct.pack_into("<H", content, at, min((below - MIB) // KIB, 0xFFFF))
    struct.pack_into("<H", content, 0x34, max(0, below - 16 * MIB) // (64 * KIB))
    content[0x5B:0x5E] = (above // (64 * KIB) & 0xFFFFFF).to_bytes(3, "little")
    for at, value in other.items():
        content[int(at.removeprefix("at_"), 16)] = value
    return bytes(content)


def clock(content: bytes) -> bytes:
    """Return the section of the clock's state."""
    return device(11, b"mc146818rtc", content + bytes(40))


def vm_state(machine: str, blocks: tuple[QemuBlock, ...], after: bytes) -> VmState:
    """Return a migration file without its pages."""
    return VmState(
        start=0,
        machine=machine,
        capabilities=(),
        subsections=(),
        ram_header=b"",
        blocks=blocks,
        list_end=b"",
        before=b"",
        after=after,
    )


def placed(
    sizes: dict[str, int], sections: bytes, machine: str = "pc-q35-10.0"
) -> dict[str, tuple[RamPiece, ...]]:
    """Return the pieces of a guest's blocks, listed by size as in QEMU."""
    listed = sorted({**ROMS, **sizes}.items(), key=lambda item: -item[1])
    blocks = tuple(QemuBlock(name, size) for name, size in listed)
    state = vm_state(machine, blocks, footer(2) + sections)
    found, _ = place_pc_ram(state, [RamBlock(*item) for item in listed])
    return {block.name: block.pieces for block in found if block.pieces}


def split(size: int, below: int) -> tuple[RamPiece, ...]:
    """Return RAM below and above the gap."""
    return (RamPiece(0, below, 0), RamPiece(below, size - below, 4 * GIB))


@pytest.mark.parametrize("name", ["pc.ram", "ram", "/objects/ram0"])
@pytest.mark.parametrize("below", [8 * MIB, 16 * MIB, 2 * GIB, 3 * GIB, 3 * GIB + 512 * MIB])
def test_ram_is_split_as_the_firmware_is_told(name, below):
    """Whatever the machine's rule, the clock has the sizes below and above 4 GiB."""
    found = placed({name: 5 * GIB}, clock(cmos(below, 5 * GIB - below)))
    assert found == {name: split(5 * GIB, below)}


@pytest.mark.parametrize("size", [8 * MIB, 64 * MIB, 2 * GIB, 3 * GIB])
def test_ram_below_the_gap_is_one_piece(size):
    """A small guest has nothing above 4 GiB."""
    assert placed({"pc.ram": size}, clock(cmos(size))) == {"pc.ram": (RamPiece(0, size, 0),)}


def test_nodes_of_libvirt_follow_each_other():
    """RAM of NUMA nodes is in order of their numbers, though the file lists it by size."""
    sizes = {f"ram-node{number}": (1 + number % 3) * GIB for number in range(11)}
    total = sum(sizes.values())
    found = placed(sizes, clock(cmos(2 * GIB, total - 2 * GIB)))
    assert found["ram-node0"] == (RamPiece(0, GIB, 0),)
    assert found["ram-node1"] == (RamPiece(0, GIB, GIB), RamPiece(GIB, GIB, 4 * GIB))
    assert found["ram-node2"] == (RamPiece(0, 3 * GIB, 5 * GIB),)
    assert found["ram-node10"] == (RamPiece(0, 2 * GIB, total + 2 * GIB - 2 * GIB),)


@pytest.mark.parametrize("dimm", [GIB, 8 * GIB])
def test_main_ram_is_told_from_a_dimm(dimm):
    """RAM not counted by the clock is elsewhere, and its address is unknown."""
    found = placed({"ram": 5 * GIB, "dimm": dimm}, clock(cmos(2 * GIB, 3 * GIB)))
    assert found == {"ram": split(5 * GIB, 2 * GIB)}


@pytest.mark.parametrize(
    "sizes",
    [
        {"ram": 5 * GIB, "dimm": 5 * GIB},
        {"n0": 2 * GIB, "n1": 3 * GIB},
        {"n0": 2 * GIB, "n1": 3 * GIB, "dimm": 5 * GIB},
        {"ram": 4 * GIB},
        {"ram": 6 * GIB},
        {"pc.ram": 6 * GIB, "n0": 3 * GIB, "n1": 3 * GIB},
        {"ram-node0": 2 * GIB, "ram-node1": 2 * GIB},
    ],
    ids=range(7),
)
def test_blocks_that_may_be_several_things_are_not_guessed(sizes):
    """If sizes don't identify the blocks of the main RAM and their order, nothing is known."""
    assert placed(sizes, clock(cmos(2 * GIB, 3 * GIB))) == {}


@pytest.mark.parametrize(
    "sections",
    [
        b"",
        clock(cmos(2 * GIB, 3 * GIB, at_0x17=7)),
        clock(cmos(2 * GIB, 3 * GIB, at_0x30=7, at_0x17=7)),
        clock(cmos(2 * GIB, 3 * GIB, at_0x5b=1)),
        clock(cmos(2 * GIB, 3 * GIB, at_0x35=1)),
        clock(cmos(2 * GIB, 3 * GIB))[:100],
        device(5, b"timer", b"\x0bmc146818rtc" + bytes(8) + cmos(2 * GIB, 3 * GIB)),
    ],
    ids=range(7),
)
def test_a_clock_that_says_something_else_is_not_believed(sections):
    """CMOS memory that is missing, cut, or overwritten by the guest is ignored."""
    assert placed({"pc.ram": 5 * GIB}, sections) == {}


def test_ram_that_amd_has_at_1_tib_is_not_guessed():
    """Above 1012 GiB the continuation of RAM depends on the processor."""
    sections = clock(cmos(2 * GIB, 1010 * GIB))
    assert placed({"pc.ram": 1012 * GIB}, sections) == {}


@pytest.mark.parametrize("machine", ["pc-q35-2.6", "pc-i440fx-11.1", "pc-q35-noble", "q35", "pc"])
def test_pcs_are_known_by_their_machine_type(machine):
    """Of every version, also of a distribution's own."""
    found = placed({"pc.ram": 5 * GIB}, clock(cmos(2 * GIB, 3 * GIB)), machine)
    assert found == {"pc.ram": split(5 * GIB, 2 * GIB)}


@pytest.mark.parametrize("machine", ["virt-10.0", "microvm", "isapc", "pseries-10.0", "pc-dimm"])
def test_other_machines_tell_nothing(machine):
    """Neither their addresses nor their architecture are known."""
    state = vm_state(machine, (QemuBlock("ram", 5 * GIB),), clock(cmos(2 * GIB, 3 * GIB)))
    assert place_pc_ram(state, [RamBlock("ram", 5 * GIB)]) == ((RamBlock("ram", 5 * GIB),), None)


RAM = Block(b"pc.ram", 2 * MIB, {0: 1, 300: 2})
TAIL = footer(2) + ram_end() + clock(cmos(MIB, MIB)) + ending()
FILES = {
    "mapped-ram": Mapped([RAM], tail=TAIL).build(),
    "qemu-stream": Stream(
        [part(data(0, 1, b"pc.ram"), data(300, 2))], [RAM], tail=clock(cmos(MIB, MIB)) + ending()
    ).build(),
}


@pytest.mark.parametrize("name", FILES)
def test_migration_files_have_addresses_and_architecture(tmp_path, name):
    """Both of QEMU's formats give the addresses of a PC's RAM."""
    (tmp_path / "file").write_bytes(FILES[name])
    image = open_image(str(tmp_path / "file"))
    known = (image.format, image.blocks[0].pieces, image.architecture)
    image.close()
    assert known == (name, split(2 * MIB, MIB), ARCHITECTURES["x86_64"])
