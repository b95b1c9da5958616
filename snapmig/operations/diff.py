"""``diff``: the pages in which two snapshots of a guest differ."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from snapmig.chains.lookup import geometry_problem
from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.handlers.compare import CompareHandler
from snapmig.handlers.load_tasks import LoadTasks
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.read import Reading, read_options
from snapmig.sealing.keyring import Keys

__all__ = ("BlockDiff", "DiffResult", "PageRange", "diff")


@dataclass(frozen=True, slots=True)
class PageRange:
    """
    Consecutive pages with differences.

    :param offset: bytes from the start of the RAM block
    :param gpa: guest physical address, None if unknown
    """

    offset: int
    gpa: int | None
    pages: int


@dataclass(frozen=True, slots=True)
class BlockDiff:
    """The differences in a RAM block; ranges are in order."""

    block: str
    pages: int
    changed_pages: int
    ranges: tuple[PageRange, ...]


@dataclass(frozen=True, slots=True)
class DiffResult:
    """
    The differences between two snapshots, by RAM block.

    :param warnings: further messages for the user, a sentence each
    """

    one: str
    other: str
    pages: int
    changed_pages: int
    blocks: tuple[BlockDiff, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@checks_arguments
def diff(
    one: str | os.PathLike[str],
    other: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    progress: ProgressCallback | None = None,
) -> DiffResult:
    """
    Compare the pages of two snapshots with the same RAM blocks and packet size.

    If both have page digests, nothing is decoded.

    :param jobs: worker processes; default: the processors available to this process
    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then
    :returns: ranges of pages by RAM block, with offsets in bytes
    :raises UsageError: RAM blocks or packets of other sizes
    :raises CorruptSnapshotError: one of them is damaged
    :raises SnapmigError: a parent is missing
    """
    started = time.monotonic()
    follow = follow_remote_parents
    options = read_options(jobs, AUTO, None, progress, follow_remote_parents=follow)
    keyring = parse_keys(keys)
    with ExitStack() as stack:
        readings = []
        for path in (one, other):
            file = stack.enter_context(SnapshotFile(os.fspath(path), keys=keyring))
            file.index.check_digest()
            readings.append(stack.enter_context(Reading(file, options)))
        files = [reading.snapshot for reading in readings]
        geometry = files[0].geometry
        if problem := geometry_problem(files[1].geometry, geometry):
            raise UsageError(problem.replace("the parent's", "the other's"), path=files[1].shown)
        if all(file.page_digests is not None for file in files):
            for file in files:
                file.keep_page_digests()
        first, second = readings
        tasks = LoadTasks(files[0], range(geometry.packet_count))
        make_handler = partial(CompareHandler, first.plans, second.plans)
        first.run(tasks, make_handler, geometry.ram_size)
        blocks = tuple(_blocks(geometry, sorted(tasks.replies)))
    return DiffResult(
        one=os.fspath(one),
        other=os.fspath(other),
        pages=sum(block.pages for block in blocks),
        changed_pages=sum(block.changed_pages for block in blocks),
        blocks=blocks,
        seconds=round(time.monotonic() - started, 3),
        warnings=tuple(readings[0].warnings),
    )


def _blocks(geometry: Geometry, found: list[tuple[int, ...]]) -> Iterator[BlockDiff]:
    for number, block in enumerate(geometry.blocks):
        packets = geometry.block_packets(number)
        own = found[bisect_left(found, (packets.start,)) : bisect_left(found, (packets.stop,))]
        runs: list[tuple[int, int]] = []
        for packet, first, count in own:
            start = (packet - packets.start) * geometry.packet_size + first * PAGE_SIZE
            stop = min(start + count * PAGE_SIZE, block.size)
            if runs and runs[-1][1] == start:
                start, _ = runs.pop()
            runs.append((start, stop))
        ranges = tuple(
            PageRange(start, gpa, -(-(stop - start) // PAGE_SIZE))
            for first, end in runs
            for start, stop, gpa in block.by_address(first, end)
        )
        pages = -(-block.size // PAGE_SIZE)
        changed = sum(count for _, _, count in own)
        yield BlockDiff(block.name, pages, changed, ranges)
