"""
The plots of docs/benchmarks.md: python -m tests.bench.figures [RESULTS ...].

docs/figures has the medians and quartiles that the plots are drawn from, a file for each question.
Result files that are named replace those of their question first.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench import facts
from tests.bench.model import Costs, save_seconds
from tests.bench.records import read_records
from tests.bench.summary import Record, Results, spread
from tests.bench.svg import Bar, Line, Panel, bars, lines

FOLDER = facts.ROOT / "docs" / "figures"
QUESTIONS = {name: name for name in ("guests", "scaling", "bandwidth")} | {"results": "files"}
"""Names of result files, and of the figures made from them."""
KEPT = ("wall_s", "cpu_s", "disk_bytes", "inner_s", "stored_bytes")
MIB, GIB = 1 << 20, 1 << 30
PACKET = 512 << 10
BANDWIDTH = 60e9
BANDWIDTHS = tuple(25 * 2 ** (step / 8) for step in range(57))
PROCESSORS = tuple(2**step for step in range(9))


def main(arguments: Sequence[str]) -> int:
    """Draw all plots; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.figures", description=__doc__)
    parser.add_argument("results", type=Path, nargs="*")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="(docs/figures)")
    options = parser.parse_args(arguments)
    for path in options.results:
        name = QUESTIONS.get(path.stem)
        if name is None:
            parser.error(f"{path}: expected one of {', '.join(QUESTIONS)}.jsonl")
        text = json.dumps(condensed(path), indent=1, sort_keys=True)
        (options.folder / f"{name}.json").write_text(text + "\n")
    for name, draw in PLOTS.items():
        source = options.folder / f"{name}.json"
        for plot, picture in draw(json.loads(source.read_text())):
            (options.folder / f"{plot}.svg").write_text(picture)
    return 0


def condensed(path: Path) -> dict[str, Any]:
    """Return the medians and quartiles in a file of results, with the facts that they depend on."""
    results = Results(read_records([path]))
    first = results.records[0]
    known = {
        name: value for name, value in first.items() if name.startswith(("machine", "version"))
    }
    costs = [
        line["costs"]
        for line in map(json.loads, path.read_text().splitlines())
        if line["type"] == "costs"
    ]
    return {
        "facts": {**known, "image": first["image"], "git_commit": first["git_commit"]},
        "rows": list(_rows(results)),
        **({"costs": costs[-1]} if costs else {}),
    }


def _rows(results: Results) -> Iterator[dict[str, Any]]:
    seen: dict[tuple[Any, ...], Record] = {}
    for record in results.records:
        who = tuple(record[name] for name in ("operation", "destination", "name", "jobs"))
        seen.setdefault(who, record)
    for (operation, place, name, jobs), record in seen.items():
        row = {"operation": operation, "destination": place, "name": name, "jobs": jobs}
        row |= {"label": results.label(name), "role": record["role"]}
        for field in KEPT:
            times = results.times(operation, place, name, jobs, field) if field in record else {}
            if found := spread(times.values()):
                row[field] = [round(value, 4) for value in (found.median, found.lower, found.upper)]
        yield row


def draw_files(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield bars beside other programs, and saves over the bandwidth of their destination."""
    panels = [_panel(figures, "save", "shm", "Save"), _panel(figures, "restore", "shm", "Restore")]
    yield "files", bars("A guest of 2 GiB beside other programs, tmpfs", _note(figures), panels)
    yield "bandwidth", _over_bandwidth(figures)


def draw_guests(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield bars beside QEMU."""
    panels = [
        _panel(figures, "save", "disk", "Save to disk, synced"),
        _panel(figures, "restore", "disk, warm", "Restore from disk, warm, until the guest runs"),
    ]
    yield "guests", bars("A paused guest of 2 GiB beside QEMU's own files", _note(figures), panels)


def draw_scaling(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the model of many processors."""
    costs = Costs(**figures["costs"])
    series = []
    for ram in (16, 64, 256, 1024, 4096):
        packets = ram * GIB // PACKET
        times = [save_seconds(costs, packets, count, BANDWIDTH).seconds for count in PROCESSORS]
        points = [
            (count, ram * GIB / took / 1e9) for count, took in zip(PROCESSORS, times, strict=True)
        ]
        series.append(Line(f"{ram} GiB" if ram < 1024 else f"{ram >> 10} TiB", points))
    limits = {"memory, assumed": BANDWIDTH, "parent, measured": 32 * PACKET / costs.task_s}
    ends = PROCESSORS[0], PROCESSORS[-1]
    series += [Line(name, [(x, most / 1e9) for x in ends], True) for name, most in limits.items()]
    title = "Saves by many processors, modelled from times measured on two"
    axes = ("processors", "GB of RAM saved in a second, of which no page is zero")
    yield "scaling", lines(title, _note(figures), axes, series)


def draw_bandwidth(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield times and sizes of saves to limited disks, of each compression and of auto."""
    panels = (
        ("auto-time", "Save of a guest to a limited disk, measured", "seconds", "inner_s", 1),
        ("auto-size", "What the same saves store", "MiB", "stored_bytes", MIB),
    )
    for name, title, unit, field, scale in panels:
        found: dict[str, list[tuple[float, float]]] = {}
        for row in figures["rows"]:
            if row["destination"] != "none":
                points = found.setdefault(row["name"], [])
                points.append((float(row["destination"]), row[field][0] / scale))
        series = [Line(codec, sorted(points)) for codec, points in found.items()]
        yield name, lines(title, _note(figures), ("MiB/s of the disk", unit), series)


PLOTS: dict[str, Callable[[dict[str, Any]], Iterator[tuple[str, str]]]] = {
    "files": draw_files,
    "guests": draw_guests,
    "scaling": draw_scaling,
    "bandwidth": draw_bandwidth,
}


def _panel(figures: dict[str, Any], operation: str, place: str, title: str) -> Panel:
    rows = [
        Bar(row["label"], *_three(row["wall_s"]), row["role"] == "snapmig")
        for row in figures["rows"]
        if (row["operation"], row["destination"]) == (operation, place)
        and row["role"] in ("snapmig", "peer")
    ]
    return Panel(f"{title}, seconds", "s", rows)


def _over_bandwidth(figures: dict[str, Any]) -> str:
    series = []
    for row in figures["rows"]:
        if (row["operation"], row["destination"], row["role"]) == ("save", "shm", "snapmig"):
            took, size = row["wall_s"][0], row["disk_bytes"][0]
            points = [(speed, max(took, size / speed / MIB)) for speed in BANDWIDTHS]
            series.append(
                Line(row["label"].removeprefix("snapmig ").replace("snapmig", "zlib 1"), points)
            )
    title = "Save of a guest of 2 GiB over the bandwidth of its destination, computed"
    return lines(title, _note(figures), ("MiB/s", "seconds"), series)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    # Median and quartiles; figures of which only the median is known have no spread.
    median, lower, upper = values if len(values) > 1 else (values[0],) * 3
    return median, lower, upper


def _note(figures: dict[str, Any]) -> str:
    known = figures["facts"]
    if "note" in known:
        return str(known["note"])
    return (
        f"{known['machine_cpu']}, {known['machine_processors']} processors, {known['git_commit']}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
