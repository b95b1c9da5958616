"""The tables that the benchmark prints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.contestants import PEERS, SNAPMIG, STARTUP
from tests.bench.plan import OPERATIONS
from tests.bench.summary import Results, Times, added, ratio, spread

MIB = 1 << 20
QUIET = 0.05
"""The share of the processors that others may have before ratios stop meaning anything."""
LIMITS = {
    "save": ("bare scan and compress", "bare write of packets"),
    "restore": ("bare decompress", "bare write of pages"),
}
ON_DISK = (
    "A run counts until its output is synced: snapmig does that by itself, the others' output is "
    "synced inside the timed part."
)


@dataclass(frozen=True)
class Target:
    """A ratio that snapmig should reach: another's time divided by its own."""

    words: str
    operation: str
    against: tuple[str, ...]
    least: float


TARGETS = (
    Target("save / bare scan and compress", "save", LIMITS["save"][:1], 0.95),
    Target("save / igzip -1", "save", ("igzip -1",), 1.4),
    Target("save / pigz -1", "save", ("pigz -1",), 6.0),
    Target("save / zstd -1", "save", ("zstd -1",), 1.0),
    Target("restore / igzip -d", "restore", ("igzip -1",), 1.8),
    Target("restore / bare decompress + write", "restore", LIMITS["restore"], 0.9),
)


@dataclass(frozen=True)
class Context:
    """What the tables are about: the facts, the places, and the numbers of jobs."""

    facts: dict[str, Any]
    destinations: dict[str, str]
    job_counts: tuple[int, ...]
    rounds: int


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return lines


def report(results: Results, context: Context) -> str:
    """Return everything for one number of jobs."""
    jobs = context.job_counts[0]
    lines = [*_head(results, context)]
    for operation in OPERATIONS:
        for place, kind in context.destinations.items():
            lines += ["", f"{operation}, written to {place} ({kind}), {jobs} jobs"]
            lines += text_table(list(_contest(results, operation, place, jobs)))
            lines += ["", *text_table(list(_limits(results, operation, place, jobs)))]
    lines += _variants(results, context)
    lines += ["", "start-up alone", *text_table(list(_startup(results)))]
    lines += ["", "targets (time of the other / time of snapmig)"]
    lines += text_table(list(_targets(results, context, jobs)))
    return "\n".join([*lines, "", *_notes()])


def scaling_report(results: Results, context: Context) -> str:
    """Return how the times fall with the number of jobs."""
    lines = [*_head(results, context)]
    for operation in OPERATIONS:
        for place, kind in context.destinations.items():
            lines += ["", f"{operation}, written to {place} ({kind}): seconds, speed-up"]
            lines += text_table(list(_scaling(results, context, operation, place)))
    return "\n".join(lines)


def verdict(measured: float | None, least: float) -> str:
    """Return a measured ratio and whether it reaches a target."""
    if measured is None:
        return "not measured"
    if measured >= least:
        return f"{measured:.2f} met"
    return f"{measured:.2f} short by {(1 - measured / least) * 100:.0f} %"


def _head(results: Results, context: Context) -> Iterator[str]:
    facts = context.facts
    kind = facts.get("image_kind") or facts.get("image_source") or "no facts beside it"
    yield f"image     {facts['image']}, {facts['image_bytes'] / MIB:.0f} MiB ({kind})"
    yield (
        f"          {facts['data_pages']} pages not zero, "
        f"{facts['raw_packets']} packets do not compress"
    )
    yield from machine_lines(results, context, ("igzip", "pigz", "zstd", "lz4"))


def machine_lines(
    results: Results, context: Context, programs: Sequence[str] = ()
) -> Iterator[str]:
    """Yield what the figures depend on besides the image, and whether they are to be trusted."""
    facts = context.facts
    memory = facts["machine_memory_bytes"] / (1 << 30)
    yield (
        f"machine   {facts['machine_cpu']}, {facts['machine_processors']} processors, "
        f"{memory:.0f} GiB, Linux {facts['machine_kernel']}"
    )
    names = ("snapmig", "python", "isal", "numpy", *programs)
    versions = (f"{name} {facts[f'version_{name}'] or 'missing'}" for name in names)
    yield f"versions  {', '.join(versions)}"
    yield f"commit    {facts['git_commit']}"
    yield f"rounds    {context.rounds}, all interleaved; medians; ratios taken round by round"
    share = results.disturbance(facts["machine_processors"])
    yield f"others    had {100 * share:.0f} % of the processors meanwhile"
    if share > QUIET:
        yield (
            "          TOO MUCH: that slows what uses all processors more than what uses one, "
            "so no ratio here is to be trusted"
        )


def _contest(results: Results, operation: str, place: str, jobs: int) -> Iterator[list[str]]:
    yield ["", "median s", "min", "max", "cpu s", "MiB", "disk MiB", "time / snapmig's"]
    own = results.times(operation, place, SNAPMIG, jobs)
    for name in results.rows(operation, place, jobs, SNAPMIG, "peer"):
        walls = results.times(operation, place, name, jobs)
        yield [
            name,
            *seconds(walls),
            _middle(results.times(operation, place, name, jobs, "cpu_s"), "{:.2f}"),
            _mib(results.times(operation, place, name, jobs, "output_bytes")),
            _mib(results.times(operation, place, name, jobs, "disk_bytes")),
            _ratio(ratio(walls, own)),
        ]


def _limits(results: Results, operation: str, place: str, jobs: int) -> Iterator[list[str]]:
    yield ["limits", "median s", "min", "max", "limit / snapmig", "limit / its own seconds"]
    whole = results.times(operation, place, SNAPMIG, jobs)
    inner = results.times(operation, place, SNAPMIG, jobs, "inner_s")
    first, second = (results.times(operation, place, name, jobs) for name in LIMITS[operation])
    named = zip((*LIMITS[operation], "both"), (first, second, added(first, second)), strict=True)
    for name, times in named:
        if times:
            yield [
                name,
                *seconds(times),
                _ratio(ratio(times, whole)),
                _ratio(ratio(times, inner)),
            ]


def _variants(results: Results, context: Context) -> list[str]:
    place, jobs = next(iter(context.destinations)), context.job_counts[0]
    names = results.rows("save", place, jobs, "variant")
    if not names:
        return []
    own = results.times("save", place, SNAPMIG, jobs)
    rows = [["", "median s", "min", "max", "MiB", "disk MiB", "time / snapmig's"]]
    for name in (SNAPMIG, *names):
        walls = results.times("save", place, name, jobs)
        rows.append(
            [
                name,
                *seconds(walls),
                _mib(results.times("save", place, name, jobs, "output_bytes")),
                _mib(results.times("save", place, name, jobs, "disk_bytes")),
                _ratio(ratio(walls, own)),
            ]
        )
    return ["", f"save with other settings, written to {place}", *text_table(rows)]


def _startup(results: Results) -> Iterator[list[str]]:
    yield ["", "median s", "min", "max"]
    for name in STARTUP:
        yield [name, *seconds(results.times("start", "", name, 1))]


def _targets(results: Results, context: Context, jobs: int) -> Iterator[list[str]]:
    places = list(context.destinations)
    yield ["", "at least", *(f"{place}" for place in places), *(f"{p}, own s" for p in places)]
    for target in TARGETS:
        found = [_measured(results, target, place, jobs, "wall_s") for place in places]
        inner = [_measured(results, target, place, jobs, "inner_s") for place in places]
        cells = [verdict(measured, target.least) for measured in found]
        limited = target.against[0].startswith("bare")
        own = [_ratio(measured) if limited else "" for measured in inner]
        yield [target.words, f"{target.least:.2f}", *cells, *own]


def _measured(results: Results, target: Target, place: str, jobs: int, field: str) -> float | None:
    times = [results.times(target.operation, place, name, jobs) for name in target.against]
    total = times[0] if len(times) == 1 else added(*times)
    return ratio(total, results.times(target.operation, place, SNAPMIG, jobs, field))


def _scaling(results: Results, context: Context, operation: str, place: str) -> Iterator[list[str]]:
    counts = context.job_counts
    yield ["", *(f"{jobs} jobs" for jobs in counts)]
    for name in results.rows(operation, place, counts[0], SNAPMIG, "peer", "limit"):
        base = results.times(operation, place, name, counts[0])
        cells = []
        for jobs in counts:
            times = results.times(operation, place, name, jobs)
            cells.append(f"{_middle(times, '{:.3f}')}  {_ratio(ratio(base, times))}x")
        yield [name, *cells]


def _notes() -> Iterator[str]:
    yield ON_DISK
    for peer in PEERS:
        yield f"{peer.name}: {peer.note}."
    yield "snapmig: its interpreter starts anew for each run, which its own seconds leave out."
    yield "bare ...: in memory, page tables complete, packets dealt out by turns, no checks."


def seconds(times: Times) -> list[str]:
    """Return median, least and greatest as cells of a table."""
    found = spread(times.values())
    if found is None:
        return ["-", "-", "-"]
    return [f"{value:.3f}" for value in (found.median, found.low, found.high)]


def _middle(times: Times, form: str) -> str:
    return form.format(median(times.values())) if times else "-"


def _mib(sizes: Times) -> str:
    return f"{median(sizes.values()) / MIB:.1f}" if sizes else "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
