"""
Page faults answered from snapshots and from a raw file: ``python -m tests.bench.faults IMAGE``.

A program in Firecracker's place touches pages of the image at random in one thread, and compares
them. The plain handler copies one page a fault from the image in the page cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import facts
from tests.bench.records import Records, described
from tests.bench.rounds import main_with, say
from tests.bench.tables import Column, figure_rows, text_table
from tests.support.program import PROGRAM

_SNAPMIG = ("daemon", "firecracker", "--once", "--listen")
_PLAIN = "plain copy"
COLUMNS = (
    Column("listens after s", "listening_s"),
    Column("median us", "median_us", "{:.0f}"),
    Column("90 % ms", "p90_us", "{:.1f}", 1000),
    Column("all pages s", "wall_s"),
)


def measure(handler: Sequence[object], socket: Path, image: Path, pages: int) -> dict[str, float]:
    """Return the figures of one guest."""
    begun = time.monotonic()
    process = subprocess.Popen(
        list(map(str, handler)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stderr.readline()
    listening = time.monotonic() - begun
    words = {"reference": str(image), "socket": str(socket), "pages": pages, "threads": 1}
    command = [sys.executable, "-m", "tests.support.vmm.firecracker", json.dumps(words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    process.communicate()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == 0
    figures = {name: found[name] for name in ("median_us", "p90_us")}
    return {**figures, "listening_s": listening, "wall_s": found["seconds"]}


def main(arguments: Sequence[str]) -> int:
    """Run and print a table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.faults", description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--pages", type=int, default=3000, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    return main_with(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> Iterator[str]:
    known = facts.collect(options.image)
    with (
        tempfile.TemporaryDirectory() as place,
        Records(options.output_dir / "faults.jsonl", known) as records,
    ):
        ways = _ways(options, Path(place))
        for number in range(options.rounds):
            for name in ways:  # what one start records, the next one knows
                handler, socket, pages = ways[name]
                figures = measure(handler, socket, options.image, pages)
                say(f"{name}: {figures['wall_s']:.2f} s")
                role = "peer" if name == _PLAIN else "snapmig"
                more = {"role": role, "order": list(ways).index(name), "pages": pages}
                records.keep(described("fault", name, number, jobs=1, **more, **figures))
            (Path(place) / "kept").unlink(missing_ok=True)
    rows = figure_rows(records.results, ("fault", None, 1), list(ways), COLUMNS, timed=None)
    yield from text_table(list(rows))
    yield f"written: {records.path}"


def _ways(options: argparse.Namespace, folder: Path) -> dict[str, tuple[list[object], Path, int]]:
    # Handlers by name, with their socket and the pages that a guest touches.
    socket, few = folder / "s", options.pages // 10
    found: dict[str, tuple[list[object], Path, int]] = {}
    for form in ("zlib", "zstd", "lz4", "none"):
        snapshot = folder / f"{form}.snap"
        save = [*PROGRAM, "save", "-f", "--compression", form, options.image, snapshot]
        subprocess.run(list(map(str, save)), check=True, capture_output=True)
        found[form] = ([*PROGRAM, *_SNAPMIG, socket, snapshot], socket, options.pages)
    known = ("--working-set", folder / "kept")
    for name, more in (
        ("zlib, the first start", known),
        ("zlib, the second", known),
        ("zlib, filled meanwhile", ("--fill",)),
    ):
        handler = [*PROGRAM, *_SNAPMIG, socket, *more, folder / "zlib.snap"]
        found[name] = (handler, socket, few)
    plain = [sys.executable, "-m", "tests.support.vmm.plain_handler", folder / "p", options.image]
    return {**found, _PLAIN: (plain, folder / "p", options.pages)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
