"""
Measures saves to a disk limited to some bandwidths, by each compression and by auto: needs root.

The disk is a file in memory behind a loop device, whose writes a control group limits; without a
limit it is memory itself. At each bandwidth all take turns. Beside the medians stands how long auto
takes beside the compression with the least median, by the median of the ratios of a round.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import facts
from tests.bench.contestants import PYTHON
from tests.bench.machines import MIB
from tests.bench.measure import run_command
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with, say, watched
from tests.bench.tables import text_table
from tests.support.filesystems import slow

AUTO = "auto"
CODECS = "none,lz4 1,zlib 1,zstd 1,zstd 3,zstd 6"
LIMITS = "50,100,200,400,800,none"

Took = dict[str, list[tuple[float, int]]]
"""Seconds by a save's own account, and its stored bytes, of each round."""


@contextmanager
def _place(folder: Path, limit: str, size: int) -> Iterator[tuple[Path, tuple[str, ...]]]:
    if limit == "none":
        yield folder, ()
        return
    with slow(folder / "disk", folder / "slow", int(limit) * MIB, size) as found:
        yield found


def _save(image: Path, folder: Path, before: Sequence[str], codec: str, jobs: int) -> Any:
    compression, _, level = codec.partition(" ")
    options = ["--compression", compression, *(["--level", level] if level else [])]
    words = ["save", "-f", "--json", "-j", str(jobs), "--format", "raw", *options]
    command = [*before, *PYTHON, *words, str(image), str(folder / "bench.snap")]
    (folder / "bench.snap").unlink(missing_ok=True)
    return run_command(command, output=folder / "bench.snap", cwd=image.parent)


def _measure(options: argparse.Namespace, limit: str, records: Records) -> Took:
    codecs = [*options.codecs.split(","), AUTO]
    took: Took = {codec: [] for codec in codecs}
    size = options.image.stat().st_size * 5 // 4
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as name,
        _place(Path(name), limit, size) as (folder, before),
    ):
        for number in range(options.rounds):
            for codec in in_turn(codecs, number, options.rounds):
                timing, others = watched(
                    lambda codec=codec: _save(options.image, folder, before, codec, options.jobs),
                    options.image.stat().st_size,
                )
                stored = timing.said["stored_size"]
                took[codec].append((timing.said["seconds"], stored))
                figures = {
                    "wall_s": timing.wall,
                    "cpu_s": timing.cpu,
                    "inner_s": timing.inner,
                    "stored_bytes": stored,
                    "codecs": timing.said["codecs"],
                    **others,
                }
                place = {"jobs": options.jobs, "destination": limit}
                records.keep(described("save", codec, number, **place, **figures))
                say(f"{limit} MiB/s, {codec}: {timing.said['seconds']:.2f} s, {others}")
    return took


def _row(limit: str, took: Took) -> list[str]:
    times = {codec: median(seconds for seconds, _ in rounds) for codec, rounds in took.items()}
    best = min((codec for codec in took if codec != AUTO), key=times.__getitem__)
    pairs = zip(took[AUTO], took[best], strict=True)
    ratio = median(mine / theirs for (mine, _), (theirs, _) in pairs)
    size = median(stored for _, stored in took[AUTO]) / median(stored for _, stored in took[best])
    return [
        limit,
        *(f"{times[codec]:.2f}" for codec in took),
        best,
        f"{ratio:.2f}",
        f"{size:.2f}",
    ]


def main() -> int:
    """Print a table, and write each run as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bandwidth", description=__doc__)
    add = parser.add_argument
    add("image", type=Path, help="RAM of a guest, in shared memory")
    add("--limits", default=LIMITS, help="of the disk in MiB/s (%(default)s)")
    add("--codecs", default=CODECS, help="beside auto (%(default)s)")
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, default=7, help="(%(default)s)")
    add("--results", type=Path, default=Path("build/bench/bandwidth.jsonl"), help="(%(default)s)")
    options = parser.parse_args()
    options.image = options.image.resolve()  # commands run in its folder

    def bench() -> list[str]:
        with Records(options.results, facts.collect(options.image)) as records:
            limits = options.limits.split(",")
            rows = [_row(limit, _measure(options, limit, records)) for limit in limits]
        columns = [*options.codecs.split(","), AUTO]
        heads = ["MiB/s", *(f"{codec}, s" for codec in columns), "best", "auto / it", "its size"]
        return text_table([heads, *rows])

    return main_with(bench)


if __name__ == "__main__":
    raise SystemExit(main())
