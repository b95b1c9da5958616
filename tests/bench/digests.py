"""
The cost of page digests to a save, and their gain in the next: python -m tests.bench.digests IMAGE.

Of an image, and of one in which some pages of some packets have a few other bytes, all ways to save
run in turn, each with one worker, whose processor time is counted: on a busy machine that is what
can be compared. Parents, snapshots and the second image are beside IMAGE, which belongs into shared
memory.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

import snapmig
from snapmig.container.format import DEFAULT_PACKET_SIZE
from snapmig.container.page_digests import digest_pages
from snapmig.geometry import PAGE_SIZE

PAGES = DEFAULT_PACKET_SIZE // PAGE_SIZE
PACKET_SHARE, PAGE_SHARE = 0.37, 0.056
"""Packets and pages that change: what a Linux guest under load changed in seconds."""
CHANGED_BYTES = 64


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
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.digests", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.image.parent) as name:
        _run(options.image, Path(name), options.rounds)
    return 0


def _run(image: Path, folder: Path, rounds: int) -> None:
    newer, out = folder / "newer", folder / "out"
    changed(image, newer)
    for digests in (False, True):
        snapmig.save(image, folder / f"parent-{digests}", page_digests=digests, jobs=1)
    plain, digested = ({"parent": folder / f"parent-{has}"} for has in (False, True))
    ways = {
        "full": {},
        "full with page digests": {"page_digests": True},
        "incremental": {**plain, "deltas": False},
        "incremental with deltas": {**plain, "deltas": True},
        "incremental with page digests": {**digested, "deltas": False},
        "the same, with deltas": {**digested, "deltas": True},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sizes: dict[str, int] = {}
    for number in range(rounds):
        # Each round begins elsewhere, so that none always follows the same.
        order = [*ways.items()] * 2
        for name, way in order[number % len(ways) :][: len(ways)]:
            out.unlink(missing_ok=True)

            def work(name: str = name, way: dict[str, object] = way) -> None:
                result = snapmig.save(newer, out, force=True, jobs=1, **way)
                sizes[name] = result.disk_size

            seconds[name].append(worker_seconds(work))
    print(f"digests of a packet's pages: {microseconds_a_packet(rounds):.0f} us")
    for name, found in seconds.items():
        ratios = [own / full for own, full in zip(found, seconds["full"], strict=True)]
        print(
            f"{name:32}{median(found):7.3f} s of a worker, {median(ratios):.2f} of a full save, "
            f"{sizes[name] / (1 << 20):7.1f} MiB"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
