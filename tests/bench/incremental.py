"""
Incremental saves beside a full one: python -m tests.bench.incremental IMAGE.

In copies of an image 64 bytes of some pages change, in neighbouring packets or scattered over all
of them. Each copy is saved in full and on parents with and without page digests, in turn, by one
worker, whose processor time is counted: on a busy machine that is what can be compared. Snapshots
and copies are beside IMAGE, which belongs into shared memory.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import snapmig
from snapmig.geometry import PAGE_SIZE

CHANGED_BYTES = 64
SHARES = (0, 1, 5, 20, 60)
WAYS: Mapping[str, tuple[bool | None, Mapping[str, object]]] = {
    "full": (None, {}),
    "full, --no-page-digests": (None, {"page_digests": False}),
    "without": (False, {}),
    "without, itself too": (False, {"page_digests": False}),
    "without, --no-deltas": (False, {"deltas": False}),
    "with": (True, {}),
    "with, --deltas": (True, {"deltas": True}),
}
"""Whether the parent has page digests, None for no parent, and the options of the save."""


def change(image: Path, target: Path, share: float, *, scattered: bool, seed: int = 1) -> None:
    """Write an image in which a share of the pages that are not zero has a few other bytes."""
    draw = np.random.default_rng(seed)
    ram = np.fromfile(image, np.uint8)
    pages = ram[: ram.size // PAGE_SIZE * PAGE_SIZE].reshape(-1, PAGE_SIZE)
    used = np.flatnonzero(pages.any(axis=1))
    count = int(share * len(used))
    start = len(used) // 3
    chosen = draw.choice(used, count, replace=False) if scattered else used[start : start + count]
    for page in chosen.tolist():
        first = int(draw.integers(0, PAGE_SIZE - CHANGED_BYTES))
        pages[page, first : first + CHANGED_BYTES] = draw.integers(0, 256, CHANGED_BYTES, np.uint8)
    ram.tofile(target)


def save(image: Path, target: Path, **options: Any) -> tuple[float, int]:
    """Save with one worker; return its processor time, and the bytes of the snapshot on disk."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = snapmig.save(image, target, force=True, jobs=1, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, result.disk_size


def main(arguments: Sequence[str]) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.incremental", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--shares", type=int, nargs="+", default=SHARES, help="per cent of pages")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.image.parent) as name:
        folder = Path(name)
        for digests in (False, True):
            target = folder / f"parent-{digests}"
            save(options.image, target, page_digests=digests)
        for share in options.shares:
            for scattered in (False, True) if share else (False,):
                newer = folder / "newer"
                change(options.image, newer, share / 100, scattered=scattered)
                print(
                    f"{share} % of the pages, {'scattered' if scattered else 'clustered'}",
                    flush=True,
                )
                _compare(newer, folder, options.rounds)
    return 0


def _compare(image: Path, folder: Path, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    sizes: dict[str, int] = {}
    for number in range(rounds):
        # Each round begins elsewhere, so that none always follows the same.
        for name in [*WAYS, *WAYS][number % len(WAYS) :][: len(WAYS)]:
            digests, way = WAYS[name]
            parent = {} if digests is None else {"parent": folder / f"parent-{digests}"}
            took, sizes[name] = save(image, folder / "out", **parent, **way)
            seconds[name].append(took)
    for name, found in seconds.items():
        ratios = [own / full for own, full in zip(found, seconds["full"], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"  {name:24}{median(found):7.3f} s of a worker, {median(ratios):5.2f} of a full save "
            f"({spread}), {sizes[name] / (1 << 20):7.1f} MiB"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
