"""ELF cores as seen by their readers: pages by guest physical address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

PAGE = 4096
STEP = 16 << 20


class Load(NamedTuple):
    """A segment of RAM: its addresses, and its place in the file."""

    start: int
    stop: int
    offset: int


def loads(core: Path) -> list[Load]:
    """Return the segments of a core in the order of addresses."""
    with core.open("rb") as file:
        found = [item.header for item in ELFFile(file).iter_segments("PT_LOAD")]
    return sorted(Load(item.p_paddr, item.p_paddr + item.p_filesz, item.p_offset) for item in found)


def ranges(core: Path) -> list[tuple[int, int]]:
    """Return the addresses in a core, as ranges that do not touch."""
    joined: list[tuple[int, int]] = []
    for start, stop, _ in loads(core):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def differing(one: Path, other: Path) -> Iterator[int]:
    """Yield the address of each page present in both cores and different."""
    ours = np.memmap(one, np.uint8, "r")
    theirs = np.memmap(other, np.uint8, "r")
    for a in loads(one):
        for b in loads(other):
            start, stop = max(a.start, b.start), min(a.stop, b.stop)
            for at in range(start, stop, STEP):
                end = min(at + STEP, stop)
                left = ours[a.offset + at - a.start : a.offset + end - a.start]
                right = theirs[b.offset + at - b.start : b.offset + end - b.start]
                wrong = (left != right).reshape(-1, PAGE).any(axis=1)
                yield from (at + PAGE * int(page) for page in np.flatnonzero(wrong))


def machine(core: Path) -> tuple[str, int, bool]:
    """Return a core's processor, its width, and True if it is little-endian."""
    with core.open("rb") as file:
        found = ELFFile(file)
        return found.header.e_machine, found.elfclass, found.little_endian
