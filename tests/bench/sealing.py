"""
The cost of encryption to saves and restores: python -m tests.bench.sealing IMAGE.

Plain and encrypted ones of an image run in turn, with each compression, timed by their own seconds:
the interpreter's start is left out. Snapshots and images are in shared memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import facts
from tests.bench.records import Records, described
from tests.bench.rounds import in_turn, main_with, say
from tests.bench.runner import SHARED_MEMORY, WARM_UP, copy_image, work_folder
from tests.bench.tables import figure_rows, text_table
from tests.support import program

COMPRESSIONS = ("zlib", "lz4", "none")
PATIENCE_S = 600
WAYS = ("plain", "encrypted")


def main(arguments: Sequence[str]) -> int:
    """Run and print tables; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sealing", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    return main_with(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> Iterator[str]:
    known = facts.collect(options.image)
    with (
        work_folder(SHARED_MEMORY) as folder,
        Records(options.output_dir / "sealing.jsonl", known) as records,
    ):
        copy_image(options.image, folder / "image")
        (folder / "key").write_bytes(bytes(range(64)))
        for number in range(WARM_UP, options.rounds):
            for compression in COMPRESSIONS:
                for way in in_turn(WAYS, number):
                    _run(options.jobs, folder, f"{compression}, {way}", number, records)
    names = [f"{compression}, {way}" for compression in COMPRESSIONS for way in WAYS]
    beside = "time / plain's (quartiles)", lambda name: name.replace(WAYS[1], WAYS[0])
    for verb in ("save", "restore"):
        where = (verb, None, options.jobs)
        yield from ("", verb)
        yield from text_table(
            list(figure_rows(records.results, where, names, (), beside, "inner_s"))
        )
    yield f"written: {records.path}"


def _run(jobs: int, folder: Path, name: str, number: int, records: Records) -> None:
    compression, way = name.split(", ")
    image, snapshot, back = (folder / name for name in ("image", "snap", "back.ram"))
    words = ["-f", "-j", jobs, "--json"]
    words += ["--key-file", folder / "key"] if way == "encrypted" else []
    seals = ["--encrypt"] if way == "encrypted" else []
    form = ["--compression", compression, *seals]
    for verb, command in (
        ("save", [image, snapshot, *form, *words]),
        ("restore", [snapshot, back, *words]),
    ):
        took = float(program.run(verb, *command, timeout=PATIENCE_S).ok(err=None).json["seconds"])
        say(f"{verb}, {name}: {took:.3f} s")
        records.keep(described(verb, name, number, jobs=jobs, inner_s=took))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
