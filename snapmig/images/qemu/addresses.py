"""
Guest physical addresses of a PC's RAM, from the device state in its migration file.

A migration file has no map of the guest's memory. But QEMU reports the sizes of RAM below and above
4 GiB to a PC's firmware in the CMOS memory of its clock (``pc_cmos_init`` in QEMU's hw/i386/pc.c),
and the file has that memory. So there is no need to know ``max-ram-below-4g`` or the differences
between machine types, and RAM elsewhere, such as a DIMM, is told from the main RAM by its size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from snapmig.architectures import ARCHITECTURES, Architecture
from snapmig.geometry import RamBlock, RamPiece
from snapmig.images.qemu.sections import SECTION_FULL
from snapmig.images.qemu.state import VmState

__all__ = ("place_pc_ram",)

_PC = re.compile(r"pc-(q35|i440fx)-|(pc|q35)$")
_RAM = "pc.ram"
_NODE = "ram-node"
"""libvirt's name for the RAM of a NUMA node, with the node's number."""

_CLOCK = b"\x0bmc146818rtc"
_CMOS_SIZE = 128
_UNIT = 64 << 10
_MIB, _GIB = 1 << 20, 1 << 30
_HYPERTRANSPORT = 1012 * _GIB
"""Above this limit PCs with AMD processors have upper RAM at 1 TiB instead of 4 GiB."""


class _Split(NamedTuple):
    below: int
    above: int


def place_pc_ram(
    state: VmState, blocks: Sequence[RamBlock]
) -> tuple[tuple[RamBlock, ...], Architecture | None]:
    """
    Return blocks, with pieces for a PC's main RAM, and the architecture.

    For another machine, or if the clock's memory contradicts the blocks, nothing is known and the
    blocks come back unchanged.
    """
    if not _PC.match(state.machine):
        return tuple(blocks), None
    architecture = ARCHITECTURES["x86_64"]
    split = _read_split(state.after)
    names = None if split is None else _main_ram(state, split)
    if split is None or names is None:
        return tuple(blocks), architecture
    pieces = _pieces(state, names, split)
    placed = tuple(replace(block, pieces=pieces.get(block.name, ())) for block in blocks)
    return placed, architecture


def _read_split(sections: bytes) -> _Split | None:
    at = sections.find(_CLOCK)
    while at >= 0:
        start = at + len(_CLOCK) + 8  # instance and version
        cmos = sections[start : start + _CMOS_SIZE]
        if at >= 5 and sections[at - 5] == SECTION_FULL and len(cmos) == _CMOS_SIZE:
            return _split(cmos)
        at = sections.find(_CLOCK, at + 1)
    return None


def _split(cmos: bytes) -> _Split | None:
    def number(first: int, size: int) -> int:
        return int.from_bytes(cmos[first : first + size], "little")

    # The size in units of 64 KiB from 16 MiB on, and twice in units of 1 KiB from 1 MiB on.
    below = 16 * _MIB + number(0x34, 2) * _UNIT
    if below == 16 * _MIB:
        below = _MIB + number(0x30, 2) * 1024
    if number(0x30, 2) != number(0x17, 2) or number(0x30, 2) != min((below - _MIB) >> 10, 0xFFFF):
        return None  # written over by the guest
    return _Split(below, number(0x5B, 3) * _UNIT)


def _main_ram(state: VmState, split: _Split) -> list[str] | None:
    # The blocks of the main RAM in the order of addresses: one, or one per NUMA node. Blocks are
    # listed by size, so only names show the order of nodes.
    sizes = {block.name: block.length for block in state.blocks}
    nodes = [name for name in sizes if name.removeprefix("/objects/").startswith(_NODE)]
    nodes.sort(key=lambda name: (len(name), name))
    choices = [[_RAM], nodes] if _RAM in sizes else [nodes]
    choices += [[name] for name in sizes if _is_alone(name, sizes)]
    return next((names for names in choices if _fits(names, sizes, split)), None)


def _is_alone(name: str, sizes: Mapping[str, int]) -> bool:
    # True if no other blocks together can be RAM of the same size.
    size = sizes[name]
    smaller = sum(other for other in sizes.values() if other < size)
    return smaller < size and list(sizes.values()).count(size) == 1


def _fits(names: Sequence[str], sizes: Mapping[str, int], split: _Split) -> bool:
    total = sum(sizes[name] for name in names)
    above = total - split.below
    return 0 <= above <= _HYPERTRANSPORT - 4 * _GIB and above == split.above


def _pieces(state: VmState, names: Sequence[str], split: _Split) -> dict[str, tuple[RamPiece, ...]]:
    sizes = {block.name: block.length for block in state.blocks}
    found, start = {}, 0
    for name in names:
        stop = start + sizes[name]
        middle = min(max(start, split.below), stop)
        parts = [
            RamPiece(0, middle - start, start),
            RamPiece(middle - start, stop - middle, 4 * _GIB + middle - split.below),
        ]
        found[name] = tuple(part for part in parts if part.size)
        start = stop
    return found
