"""
Measures a mounted snapshot: the time until it is there, pages touched, all of it read.

    python -m tests.bench.mounts --image .cache/guest/linux-2G.ram

Prints the table of docs/mount.md. Nothing is dropped from the page cache but by unmounting, so the
snapshot itself is warm.
"""

import argparse
import mmap
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import snapmig
from tests.support import program
from tests.support.mounts import mounted

TOUCHES = 200
STEP = 1 << 20
_DECODED = re.compile(r"(\d+) of (\d+) packets were decoded")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.mounts", description=__doc__)
    parser.add_argument("--image", type=Path, default=Path(".cache/guest/linux-2G.ram"))
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args(arguments)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def touch(file: Path) -> list[float]:
    """Return the seconds for each of some pages touched in a mapping, anywhere."""
    size = file.stat().st_size
    draw = random.Random(7)
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as content,
    ):
        places = [draw.randrange(size // 4096) * 4096 for _ in range(TOUCHES)]
        return [timed(lambda at=at: content[at]) for at in places]


def read_all(file: Path) -> None:
    """Read a file from its start to its end."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(STEP):
            pass


def run(snapshot: Path, folder: Path, jobs: int) -> dict[str, float]:
    """Return the figures of two mounts, one to touch and one to read."""
    mount = ("--jobs", jobs)
    started = time.perf_counter()
    with mounted(snapshot, folder / "mnt", *mount) as files:
        ready = time.perf_counter() - started
        touches = touch(files / "guest.ram")
    decoded = int(_DECODED.findall((folder / "mnt.log").read_text())[-1][0])
    with mounted(snapshot, folder / "mnt", *mount) as files:
        cold = timed(lambda: read_all(files / "guest.ram"))
        warm = timed(lambda: read_all(files / "guest.ram"))
    return {
        "until the files are there, s": ready,
        "a page touched, median, ms": 1e3 * statistics.median(touches),
        "a page touched, 90 %, ms": 1e3 * sorted(touches)[TOUCHES * 9 // 10],
        f"packets decoded for {TOUCHES} pages": decoded,
        "all of it read, s": cold,
        "all of it read again, s": warm,
    }


def restored(snapshot: Path, folder: Path, jobs: int) -> float:
    """Return the seconds of a restore."""
    command = ("restore", "-f", "-j", jobs, "--format", "raw", snapshot, folder / "restored")
    return timed(lambda: program.run(*command).ok())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    options = parse_arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="snapmig-bench-") as name:
        folder = Path(name)
        snapmig.save(options.image, folder / "s")
        packets = sum(snapmig.info(folder / "s").packets.values())
        rows: dict[str, dict[int, list[float]]] = {}
        for _ in range(options.runs):
            for jobs in (1, 2):
                figures = run(folder / "s", folder, jobs)
                figures["a restore beside it, s"] = restored(folder / "s", folder, jobs)
                for label, figure in figures.items():
                    rows.setdefault(label, {}).setdefault(jobs, []).append(figure)
    size = options.image.stat().st_size >> 20
    load = os.getloadavg()[0]
    print(f"{size} MiB in {packets} packets, median of {options.runs} runs, load {load:.0f}")
    print("| | 1 job | 2 jobs |\n|---|---|---|")
    for label, found in rows.items():
        cells = (f"{statistics.median(found[jobs]):.3g}" for jobs in (1, 2))
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
