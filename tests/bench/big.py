"""
Large sparse guests and long chains: ``python -m tests.bench.big --folder DIR``.

Each verb's time, processor time and the memory of its largest process, for a sparse image with more
and more pages at even distances, and for more and more snapshots in a chain. The last column is by
how much the processor time grew, beside the growth of the pages or of the chain.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from snapmig.geometry import PAGE_SIZE
from snapmig.units import parse_size
from tests.support.program import PROGRAM

_CONTENTS = 64
"""Different pages of an image."""
_CHANGED = 100
"""One in so many pages is changed from one snapshot to the next."""
_FICLONERANGE = 0x4020940D
"""From linux/fs.h: share a range of another file."""
_REFLINKS = "a folder on XFS or btrfs for images that take no room: their pages share few blocks"
Places = Iterable[tuple[int, int]]
"""Numbers of pages, and their offsets."""


class Cost(NamedTuple):
    """What a command took: seconds, processor seconds, and the MiB of its largest process."""

    wall: float
    cpu: float
    memory: float


def run(*words: object) -> Cost:
    """Run snapmig."""
    begun = time.monotonic()
    process = subprocess.Popen([*PROGRAM, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    wall = time.monotonic() - begun
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def write_pages(
    image: Path, size: int, count: int, every: int = 1, seed: int = 0, *, reflinks: bool = False
) -> None:
    """Write one in ``every`` of ``count`` pages at even distances into a sparse image."""
    letters = random.Random(seed)
    words = [b"%06x is a word " % letters.getrandbits(24) * 4 for _ in range(300)]
    contents = [b"".join(letters.choices(words, k=300))[:PAGE_SIZE] for _ in range(_CONTENTS)]
    distance = size // count // PAGE_SIZE * PAGE_SIZE
    numbers = range(seed % every, count, every)
    with image.open("r+b" if image.exists() else "x+b", buffering=0) as file:
        file.truncate(size)
        if reflinks:
            _share_pages(file, contents, ((number, number * distance) for number in numbers))
            return
        for number in numbers:
            os.pwrite(file.fileno(), contents[number % _CONTENTS], number * distance)


def _share_pages(file: FileIO, contents: Sequence[bytes], places: Places) -> None:
    # The blocks outlive the file without a name that they are taken from.
    with tempfile.TemporaryFile(dir=Path(file.name).parent, buffering=0) as shared:
        shared.write(b"".join(contents))
        try:
            for number, place in places:
                taken = number % _CONTENTS * PAGE_SIZE
                wanted = struct.pack("=qQQQ", shared.fileno(), taken, PAGE_SIZE, place)
                fcntl.ioctl(file, _FICLONERANGE, wanted)
        except OSError as error:
            message = f"{file.name}: pages can't be shared here, expected a folder on XFS or btrfs"
            raise SystemExit(message) from error
    _drop(Path(file.name))


def _drop(image: Path) -> None:
    # A small image would stay in memory, and be cheaper to read again than a large one.
    with image.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sparse(
    folder: Path, image: Path, size: int, count: int, form: Sequence[str]
) -> Iterator[tuple[str, Cost]]:
    """Yield the verbs' costs of an image with so many pages, of reflinks if it is elsewhere."""
    reflinks = image.parent != folder
    full, child, merged, same = (folder / f"{number}.snap" for number in range(1, 5))
    write_pages(image, size, count, reflinks=reflinks)
    yield "save", run("save", *form, image, full)
    yield "verify", run("verify", full)
    yield "restore", run("restore", full, folder / "out")
    (folder / "out").unlink()
    write_pages(image, size, count, _CHANGED, 1, reflinks=reflinks)
    yield "save, 1 % changed", run("save", *form, "--parent", full, image, child)
    yield "diff", run("diff", full, child)
    yield "merge", run("merge", child, merged)
    _drop(image)
    yield "save, unchanged", run("save", *form, "--parent", merged, image, same)
    merged.unlink()
    same.unlink()
    yield "verify of the latter", run("verify", child)
    yield "restore of the latter", run("restore", child, folder / "out")
    for each in {image, *folder.iterdir()}:
        each.unlink()


def chain(folder: Path, size: int, pages: int, length: int) -> Iterator[tuple[str, Cost]]:
    """Yield the verbs' costs of the last of so many snapshots of a guest."""
    image = folder / "image"
    write_pages(image, size, pages)
    run("save", image, folder / "0.snap")
    for number in range(1, length):
        write_pages(image, size, pages, _CHANGED, number)
        parent, last = folder / f"{number - 1}.snap", folder / f"{number}.snap"
        cost = run("save", "--parent", parent, image, last)
    yield "save", cost
    yield "verify", run("verify", last)
    yield "restore", run("restore", last, folder / "out")
    yield "diff", run("diff", folder / "0.snap", last)
    yield "merge", run("merge", last, folder / "merged")
    for each in folder.iterdir():
        each.unlink()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ram", type=parse_size, default=1 << 40)
    parser.add_argument("--pages", type=int, nargs="*", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--small", action="store_true", help="packed and without page digests")
    parser.add_argument("--reflinks", type=Path, metavar="DIR", help=_REFLINKS)
    parser.add_argument("--chain-ram", type=parse_size, default=256 << 30)
    parser.add_argument("--chain-pages", type=int, default=50_000)
    parser.add_argument("--chains", type=int, nargs="*", default=[4, 16, 64])
    options = parser.parse_args()
    form = ["--layout", "packed", "--no-page-digests"] if options.small else []
    print("| | verb | s | processor s | largest process, MiB | growth |")
    print("|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=options.folder) as name, ExitStack() as stack:
        folder = image_folder = Path(name)
        if options.reflinks:
            elsewhere = tempfile.TemporaryDirectory(dir=options.reflinks)
            image_folder = Path(stack.enter_context(elsewhere))
        for kind, sizes in (("pages", options.pages), ("snapshots", options.chains)):
            before: dict[str, tuple[int, float]] = {}
            for size in sizes:
                found = (
                    sparse(folder, image_folder / "image", options.ram, size, form)
                    if kind == "pages"
                    else chain(folder, options.chain_ram, options.chain_pages, size)
                )
                for verb, cost in found:
                    count, cpu = before.get(verb, (size, cost.cpu))
                    growth = f"{cost.cpu / cpu:.2f} / {size / count:.2f}"
                    before[verb] = size, cost.cpu
                    shown = f"{cost.wall:.1f} | {cost.cpu:.1f} | {cost.memory:.0f} | {growth}"
                    print(f"| {size:,} {kind} | {verb} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
