"""
The cost of page digests to a save, and their gain in the next: python -m tests.bench.digests IMAGE.

Of an image, and of one in which some pages of some packets have a few other bytes, all ways to save
run in turn, each with one worker, whose processor time is counted: on a busy machine that is what
can be compared. Images and snapshots are in shared memory.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import snapmig
from snapmig.container.format import DEFAULT_PACKET_SIZE
from snapmig.container.page_digests import digest_pages
from snapmig.geometry import PAGE_SIZE
from tests.bench import facts
from tests.bench.measure import sizes
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with
from tests.bench.runner import SHARED_MEMORY, copy_image, work_folder
from tests.bench.tables import DISK, figure_rows, text_table

PAGES = DEFAULT_PACKET_SIZE // PAGE_SIZE
PACKET_SHARE, PAGE_SHARE = 0.37, 0.056
"""Packets and pages that change: what a Linux guest under load changed in seconds."""
CHANGED_BYTES = 64
FULL = "full"


def changed(image: Path, target: Path, seed: int = 1) -> None:
    """Write an image in which a share of the pages in a share of the packets has other bytes."""
    draw = np.random.default_rng(seed)
    ram = np.fromfile(image, np.uint8)
    pages = ram[: ram.size // DEFAULT_PACKET_SIZE * DEFAULT_PACKET_SIZE].reshape(-1, PAGE_SIZE)
    used = pages.any(axis=1)
    packets = np.flatnonzero(used.reshape(-1, PAGES).any(axis=1))
    chosen = draw.choice(packets, int(PACKET_SHARE * len(packets)), replace=False)
    candidates = np.flatnonzero(used & np.isin(np.arange(len(pages)) // PAGES, chosen))
    count = int(PAGE_SHARE * np.count_nonzero(used))
    for page in draw.choice(candidates, min(count, len(candidates)), replace=False).tolist():
        start = int(draw.integers(0, PAGE_SIZE - CHANGED_BYTES))
        pages[page, start : start + CHANGED_BYTES] = draw.integers(0, 256, CHANGED_BYTES, np.uint8)
    ram.tofile(target)


def worker_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of the worker processes that some work starts and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def microseconds_a_packet(rounds: int) -> float:
    """Return what the digests of the pages of one packet take, at best."""
    pages = np.random.default_rng(1).integers(0, 256, (PAGES, PAGE_SIZE), np.uint8)
    mask = np.ones(PAGES, np.bool_)
    found = []
    for _ in range(50 * rounds):
        started = time.process_time_ns()
        digest_pages(pages, mask)
        found.append(time.process_time_ns() - started)
    return min(found) / 1000


def main(arguments: Sequence[str]) -> int:
    """Run and print a table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.digests", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    return main_with(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> Iterator[str]:
    known = facts.collect(options.image)
    with (
        work_folder(SHARED_MEMORY) as folder,
        Records(options.output_dir / "digests.jsonl", known) as records,
    ):
        copy_image(options.image, folder / "image")
        names = _run(folder, options.rounds, records)
    yield f"digests of a packet's pages: {microseconds_a_packet(options.rounds):.0f} us"
    beside = "time / full's (quartiles)", lambda _name: FULL
    where = ("save", None, 1)
    rows = figure_rows(records.results, where, names, (DISK,), beside, "cpu_s")
    yield from text_table(list(rows))
    yield f"written: {records.path}"


def _run(folder: Path, rounds: int, records: Records) -> list[str]:
    image, newer, out = (folder / name for name in ("image", "newer", "out"))
    changed(image, newer)
    for digests in (False, True):
        snapmig.save(image, folder / f"parent-{digests}", page_digests=digests, jobs=1)
    plain, digested = ({"parent": folder / f"parent-{has}"} for has in (False, True))
    ways: dict[str, dict[str, Any]] = {
        FULL: {"page_digests": False},
        "full with page digests": {"page_digests": True},
        "incremental": {**plain, "deltas": False},
        "incremental with deltas": {**plain, "deltas": True},
        "incremental with page digests": {**digested, "deltas": False},
        "the same, with deltas": {**digested, "deltas": True},
    }
    for number in range(rounds):
        for name in in_turn(list(ways), number):
            out.unlink(missing_ok=True)
            seconds = worker_seconds(
                lambda name=name: snapmig.save(newer, out, force=True, jobs=1, **ways[name])
            )
            size = sizes(out).disk
            records.keep(described("save", name, number, jobs=1, cpu_s=seconds, disk_bytes=size))
    return list(ways)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
