"""Facts about QEMU's memory tree: what is read of it, and when nothing is known."""

from typing import Any

import pytest

from snapmig.architectures import ARCHITECTURES
from snapmig.geometry import RamPiece
from snapmig.guests.addresses import find_addresses, parse_memory_tree, pieces_of_blocks
from snapmig.guests.monitor import MonitorError

VIEW = """\
FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 AS "ich9-ahci", root: bus master container
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000c9fff (prio 0, rom): ram @00000000000c0000
  00000000000ca000-00000000007fffff (prio 0, ram): ram @00000000000ca000
  00000000b0000000-00000000bfffffff (prio 0, i/o): pcie-mmcfg-mmio
  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram
  00000000febf0400-00000000febf041f (prio -1, i/o): vga ioports remapped
  00000000fec00000-00000000fecfffff (prio 0, ramd): 0000:01:00.0 BAR 0 mmaps[0]
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-00000001017fffff (prio 0, ram): ram @0000000000800000
"""
OTHERS = """\
FlatView #0
 AS "mch", root: bus master container
 Root memory region: (none)
  No rendered FlatView

{view}
FlatView #3
 AS "cpu-smm-0", root: memory
 Root memory region: memory
  0000000000000000-00000000000bffff (prio 0, ram): ram
"""
TREE = OTHERS.format(view=VIEW)
RAM = (
    RamPiece(0, 0xA0000, 0),
    RamPiece(0xC0000, 0x740000, 0xC0000),
    RamPiece(0x800000, 0x1800000, 1 << 32),
)
REGIONS = {
    "ram": RAM,
    "vga.vram": (RamPiece(0, 16 << 20, 0xFD000000),),
    "pc.bios": (RamPiece(0, 256 << 10, 0xFFFC0000),),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ram_of_system_memory_is_found(end):
    """RAM and ROM have their pieces, those that differ in protection alone joined; others none."""
    assert parse_memory_tree(TREE.replace("\n", end)) == REGIONS


def test_ram_under_kvm_is_found():
    """An accelerator that has the memory too is named behind it."""
    marked = TREE.replace("): ram\n", "): ram KVM\n").replace("00800000\n", "00800000 KVM\n")
    assert parse_memory_tree(marked)["ram"] == RAM


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown command: 'info mtree'\r\n",
        TREE.replace('AS "memory"', 'AS "mem"'),
        TREE + "\n" + VIEW,
        TREE.replace("(prio 0, ram): ram @00000000000ca000", "ram"),
        TREE.replace("(prio 1, ram)", "(prio one, ram)"),
        TREE.replace("00000000fd000000-", "fd000000-"),
        TREE.replace(" Root memory region: system\n", " Root: system\n"),
    ],
    ids=range(8),
)
def test_any_other_text_tells_nothing(text):
    """A tree with a line of another form is not believed in part."""
    assert parse_memory_tree(text) == {}


def test_blocks_are_found_by_the_name_of_their_region():
    """A device's block has its place before the name."""
    sizes = {"0000:00:01.0/vga.vram": 16 << 20, "ram": 32 << 20, "other": 4096}
    assert pieces_of_blocks(REGIONS, sizes) == {
        "0000:00:01.0/vga.vram": REGIONS["vga.vram"],
        "ram": RAM,
    }


def test_a_region_of_two_blocks_is_of_none():
    """Two devices of one kind can't be told apart."""
    sizes = {"0000:00:01.0/vga.vram": 16 << 20, "0000:00:02.0/vga.vram": 16 << 20}
    assert pieces_of_blocks(REGIONS, sizes) == {}


def test_a_region_that_does_not_fit_its_block_is_of_none():
    """A piece outside of a block is not one of its own."""
    assert pieces_of_blocks(REGIONS, {"ram": (32 << 20) - 1}) == {}


class FakeMonitor:
    """Answers what it is told to, or refuses."""

    def __init__(self, tree: Any, target: Any) -> None:
        self.answers = {"human-monitor-command": tree, "query-target": target}

    def execute(self, command: str, **_arguments: Any) -> Any:
        """Return the answer, or raise it where it is an error."""
        answer = self.answers[command]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_qemu_is_asked_for_both():
    """Addresses come from the tree, the architecture from the target."""
    found = find_addresses(FakeMonitor(TREE, {"arch": "aarch64"}))
    assert found == (REGIONS, ARCHITECTURES["aarch64"])


@pytest.mark.parametrize("tree", [MonitorError("disabled"), None, 7, ["x"], {"x": 1}, "?"])
@pytest.mark.parametrize(
    "target", [MonitorError("disabled"), None, "x86_64", {}, {"arch": 7}, {"arch": "vax"}]
)
def test_what_qemu_does_not_tell_is_not_known(tree, target):
    """A refusal, or an answer of another form, is no error."""
    assert find_addresses(FakeMonitor(tree, target)) == ({}, None)
