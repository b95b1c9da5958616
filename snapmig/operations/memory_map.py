"""``map``: a picture of a guest's memory, by the kinds of its pages."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import numpy as np

from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.maps.cells import BlockMap, Cell, Counts, MemoryMap, count_cells, packets_per_cell
from snapmig.maps.tones import legend
from snapmig.operations.diff import DiffResult, diff
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.progress import ProgressCallback
from snapmig.sealing.keyring import Keys

__all__ = ("BlockMap", "Cell", "MemoryMap", "memory_map")


@checks_arguments
def memory_map(
    snapshot: str | os.PathLike[str],
    *,
    against: str | os.PathLike[str] | None = None,
    cells: int = 4096,
    jobs: int | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    progress: ProgressCallback | None = None,
) -> MemoryMap:
    """
    Return the memory of a snapshot in cells, with the pages of each by kind.

    Reads the index and no packet; with ``against``, whatever :func:`snapmig.diff` reads.

    :param against: another snapshot of the same RAM blocks: show what changed since
    :param cells: at most so many, at least 1; a block has one of its own in any case
    :param jobs: worker processes, with ``against``
    :param follow_remote_parents: as in :func:`snapmig.diff`
    :param keys: for sealed snapshots; a map without ``against`` needs none
    :param progress: called now and then, with ``against``
    :returns: a power of two of packets in each cell
    :raises UsageError: no cells, or RAM blocks of other sizes in ``against``
    :raises CorruptSnapshotError: damaged outside its packets
    """
    if cells < 1:
        raise UsageError(f"cells is {cells}, expected 1 or more")
    found = None
    if against is not None:
        follow = follow_remote_parents
        found = diff(
            against, snapshot, jobs=jobs, follow_remote_parents=follow, keys=keys, progress=progress
        )
    with SnapshotFile(os.fspath(snapshot), keys=parse_keys(keys), locked=True) as file:
        file.index.check_digest()
        packets = packets_per_cell(file.geometry, cells)
        changed = None if found is None else _changed(found, file.geometry, packets)
        blocks = count_cells(file, packets, changed)
        created = datetime.fromtimestamp(file.superblock.created_ns / 1e9, UTC)
        return MemoryMap(
            snapshot=file.shown,
            against=None if found is None else found.one,
            created=created.isoformat("T", "seconds"),
            ram_size=file.geometry.ram_size,
            stored_size=sum(cell.stored_size for block in blocks for cell in block.cells),
            packet_size=file.geometry.packet_size,
            cell_size=packets * file.geometry.packet_size,
            totals={tone.value: size for tone, size in legend(blocks).items()},
            blocks=blocks,
            warnings=() if found is None else found.warnings,
        )


def _changed(found: DiffResult, geometry: Geometry, packets: int) -> dict[str, Counts]:
    size = packets * geometry.packet_size
    counts = {}
    for number, block in enumerate(found.blocks):
        own = np.zeros(-(-geometry.blocks[number].size // size), np.int64)
        for part in block.ranges:
            start, stop = part.offset, part.offset + part.pages * PAGE_SIZE
            for at in range(start // size, -(-stop // size)):
                own[at] += (min(stop, (at + 1) * size) - max(start, at * size)) // PAGE_SIZE
        counts[block.block] = own
    return counts
