"""
Guest physical addresses of a running guest's RAM, and its architecture, as reported by QEMU.

No QMP command lists them all, so this parses the human monitor's ``info mtree -f``: its view of
system memory names each range of RAM and its place in its block. If the output is not as expected,
or QEMU refuses the command, the addresses stay unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from snapmig.architectures import ARCHITECTURES, Architecture
from snapmig.geometry import RamPiece
from snapmig.guests.monitor import Monitor, MonitorError

__all__ = ("Addresses", "find_addresses", "parse_memory_tree", "pieces_of_blocks")

_SYSTEM = re.compile(r'^ AS "memory", root: \S+$', re.MULTILINE)
_RANGE = re.compile(
    r"  (?P<first>[0-9a-f]{16})-(?P<last>[0-9a-f]{16}) \(prio -?\d+, (?P<kind>[a-z/-]+)\): "
    r"(?P<name>.+?)(?: @(?P<offset>[0-9a-f]{16}))?(?: KVM)?"
)
_HEAD = re.compile(r"(FlatView #\d+| AS \".*\", root: .*| Root memory region: .*)")
_RAM = {"ram", "rom", "nv-ram", "nv-rom"}
"""Kinds of memory in RAM blocks; not flash chips, which QEMU's own dumps leave out too."""


class Addresses(NamedTuple):
    """
    A guest's address space, as reported by QEMU.

    :param regions: the pieces of each RAM region, by its name
    :param architecture: the guest's processors, None if not known here
    """

    regions: Mapping[str, tuple[RamPiece, ...]]
    architecture: Architecture | None


def find_addresses(monitor: Monitor) -> Addresses:
    """
    Ask QEMU for the addresses of a guest's RAM.

    A monitor without these commands is no error: the addresses are unknown then.
    """
    text: object = ""
    target: object = None
    with suppress(MonitorError):
        text = monitor.execute("human-monitor-command", command_line="info mtree -f")
    with suppress(MonitorError):
        target = monitor.execute("query-target")
    name = target.get("arch") if isinstance(target, dict) else None
    regions = parse_memory_tree(text) if isinstance(text, str) else {}
    architecture = ARCHITECTURES.get(name) if isinstance(name, str) else None
    return Addresses(regions, architecture)


def parse_memory_tree(text: str) -> dict[str, tuple[RamPiece, ...]]:
    """Return the pieces of each region of RAM in system memory; empty for any other text."""
    views = text.replace("\r\n", "\n").split("\n\n")
    system = [view for view in views if _SYSTEM.search(view)]
    if len(system) != 1:
        return {}
    found: dict[str, list[RamPiece]] = {}
    for line in system[0].strip("\n").split("\n"):
        match = _RANGE.fullmatch(line)
        if match is None:
            if _HEAD.fullmatch(line) is None:
                return {}
        elif match["kind"] in _RAM:
            first, last = int(match["first"], 16), int(match["last"], 16)
            piece = RamPiece(int(match["offset"] or "0", 16), last + 1 - first, first)
            _add(found.setdefault(match["name"], []), piece)
    return {name: tuple(pieces) for name, pieces in found.items()}


def _add(pieces: list[RamPiece], piece: RamPiece) -> None:
    # Ranges that differ only in their protection are one piece.
    if pieces:
        last = pieces[-1]
        if (last.offset + last.size, last.gpa + last.size) == (piece.offset, piece.gpa):
            pieces[-1] = RamPiece(last.offset, last.size + piece.size, last.gpa)
            return
    pieces.append(piece)


def pieces_of_blocks(
    regions: Mapping[str, tuple[RamPiece, ...]], sizes: Mapping[str, int]
) -> dict[str, tuple[RamPiece, ...]]:
    """
    Return the pieces of RAM blocks.

    A device's block is named after the device's path and its region. A region that fits several
    blocks, or none, has no known address.

    :param sizes: bytes of each RAM block, by its name
    """
    found = {}
    for region, pieces in regions.items():
        names = [name for name in sizes if name == region or name.endswith(f"/{region}")]
        if len(names) == 1 and _fit(pieces, sizes[names[0]]):
            found[names[0]] = pieces
    return found


def _fit(pieces: Iterable[RamPiece], size: int) -> bool:
    return all(piece.size > 0 and piece.offset + piece.size <= size for piece in pieces)
