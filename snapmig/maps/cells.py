"""Cells of a map: a number of packets each, with their pages counted by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snapmig.container.format import Encoding
from snapmig.container.index import Records
from snapmig.container.reader import SnapshotFile
from snapmig.geometry import PAGE_SIZE, Geometry, RamPiece

__all__ = ("BlockMap", "Cell", "Counts", "MemoryMap", "count_cells", "packets_per_cell")

Counts = npt.NDArray[np.int64]

_INDEX_STEP = 8192
_FIELDS = ("same", "delta", "compressed", "raw", "stored_size")


@dataclass(frozen=True, slots=True)
class Cell:
    """
    Consecutive packets of a RAM block.

    :param offset: bytes from the start of the block
    :param gpa: guest physical address of the first byte, None if unknown
    :param pages: all of them, zero pages included
    :param same: pages of the parent's
    :param delta: pages stored as differences from the parent's
    :param compressed: pages stored in compressed packets
    :param raw: pages stored as they are
    :param stored_size: bytes of the packets in the file
    :param changed: pages other than in the other snapshot; None without one
    """

    offset: int
    gpa: int | None
    pages: int
    same: int
    delta: int
    compressed: int
    raw: int
    stored_size: int
    changed: int | None = None

    @property
    def in_use(self) -> int:
        """Pages other than zero."""
        return self.same + self.delta + self.compressed + self.raw


@dataclass(frozen=True, slots=True)
class BlockMap:
    """A RAM block cut into cells, in the order of offsets; size in bytes."""

    block: str
    size: int
    pieces: tuple[RamPiece, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """
    The memory of a snapshot in cells; sizes are in bytes.

    :param against: the other snapshot, None without one
    :param created: time of the commit, ISO 8601 in UTC
    :param cell_size: RAM in a cell; the last one of a block may have less
    :param totals: RAM by its kind, in the words of the legend
    """

    snapshot: str
    against: str | None
    created: str
    ram_size: int
    stored_size: int
    packet_size: int
    cell_size: int
    totals: dict[str, int]
    blocks: tuple[BlockMap, ...]
    warnings: tuple[str, ...] = ()


def packets_per_cell(geometry: Geometry, limit: int) -> int:
    """
    Return the smallest power of two with at most ``limit`` cells, or one for each block.

    :param limit: at least 1
    """
    counts = [len(geometry.block_packets(number)) for number in range(len(geometry.blocks))]
    packets = 1
    while sum(-(-count // packets) for count in counts) > max(limit, len(counts)):
        packets *= 2
    return packets


def count_cells(
    file: SnapshotFile, packets: int, changed: dict[str, Counts] | None = None
) -> tuple[BlockMap, ...]:
    """
    Return the cells of all RAM blocks.

    :param packets: in a cell
    :param changed: for each RAM block the number of changed pages, a cell each
    :raises CorruptSnapshotError: a record of the index is damaged
    """
    geometry = file.geometry
    blocks = []
    for number, block in enumerate(geometry.blocks):
        counts = _block_counts(file, geometry.block_packets(number), packets)
        size = packets * geometry.packet_size
        own = None if changed is None else changed[block.name]
        cells = []
        row: list[Any]
        for at, row in enumerate(counts.tolist()):
            start, stop = at * size, min((at + 1) * size, block.size)
            _, _, gpa = next(block.by_address(start, stop))
            pages = -(-(stop - start) // PAGE_SIZE)
            row.append(None if own is None else int(own[at]))
            cells.append(Cell(start, gpa, pages, *row))
        blocks.append(BlockMap(block.name, block.size, block.pieces, tuple(cells)))
    return tuple(blocks)


def _block_counts(file: SnapshotFile, packets: range, per_cell: int) -> Counts:
    counts = np.zeros((-(-len(packets) // per_cell), len(_FIELDS)), np.int64)
    for first in range(packets.start, packets.stop, _INDEX_STEP):
        records = file.checked_records(first, min(_INDEX_STEP, packets.stop - first))
        inside = np.arange(len(records)) + (first - packets.start)
        np.add.at(counts, inside // per_cell, _packet_counts(records))
    return counts


def _packet_counts(records: Records) -> Counts:
    # The kinds of four pages are in a byte, two bits each; see docs/format.md.
    stored, parents = records["kinds"] & 0x55, records["kinds"] >> 1 & 0x55
    data, same, delta = (
        np.bitwise_count(kind).sum(axis=1, dtype=np.int64)
        for kind in (stored & ~parents, parents & ~stored, stored & parents)
    )
    raw = np.where(records["encoding"] == Encoding.RAW, data, 0)
    return np.stack([same, delta, data - raw, raw, records["stored_size"].astype(np.int64)], axis=1)
