"""The tables that the benchmark prints."""

from collections.abc import Iterator, Sequence

from tests.bench.choices import choice_rows, choices
from tests.bench.contestants import OWN, OWN_NAMES, SNAPMIG, STARTUP, contestants, rival
from tests.bench.summary import Context, Results, added, ratio
from tests.bench.svg import Panel, bar, bars
from tests.bench.tables import (
    CPU,
    DISK,
    LENGTH,
    MIB,
    figure_rows,
    middle,
    relative,
    seconds,
    text_table,
)
from tests.bench.targets import target_rows

QUIET = 0.05
"""The share of the processors that others may have before ratios stop meaning anything."""
RAW = "raw_packets_"
ON_DISK = (
    "A run counts until its output is synced: snapmig does that by itself, the others' output is "
    "synced inside the timed part."
)
OVER_BANDWIDTH = (
    "Which to take: over a bandwidth a save or restore takes the longer of its time here and its "
    "snapshot's size on disk divided by that bandwidth."
)


def report(results: Results, context: Context) -> str:
    """Return everything for one number of jobs."""
    jobs = context.job_counts[0]
    lines = [*_head(results, context)]
    for operation in context.operations:
        for place, kind in context.destinations.items():
            lines += ["", f"{operation}, written to {place} ({kind}), {jobs} jobs"]
            lines += text_table(list(_contest(results, operation, place, jobs)))
            lines += ["", *text_table(list(_limits(results, operation, place, jobs)))]
    lines += _choices(results, context)
    lines += _variants(results, context)
    lines += ["", "start-up alone", *text_table(list(_startup(results)))]
    lines += ["", "targets (figure of the other / figure of snapmig)"]
    lines += text_table(list(target_rows(results, context, jobs)))
    return "\n".join([*lines, "", *_notes(results, context)])


def drawn(results: Results, context: Context) -> str:
    """Return the plot: bars of medians, with lines from one quartile of the rounds to the other."""
    known, jobs = context.facts, context.job_counts[0]
    panels = []
    for operation in context.operations:
        for place, kind in context.destinations.items():
            names = results.rows(operation, place, jobs, SNAPMIG, "peer")
            times = {name: results.times(operation, place, name, jobs) for name in names}
            rows = [bar(results.label(name), times[name], name in OWN_NAMES) for name in names]
            panels.append(Panel(f"{operation} to {place} ({kind}), seconds", "s", rows))
    title = f"{known['image']}, {known['image_bytes'] / MIB:.0f} MiB, {jobs} jobs"
    note = f"{known['machine_cpu']}, medians of {context.rounds} rounds"
    return bars(title, note, panels)


def scaling_report(results: Results, context: Context) -> str:
    """Return how the times fall with the number of jobs."""
    lines = [*_head(results, context)]
    for operation in context.operations:
        for place, kind in context.destinations.items():
            lines += ["", f"{operation}, written to {place} ({kind}): seconds, speed-up"]
            lines += text_table(list(_scaling(results, context, operation, place)))
    return "\n".join(lines)


def _head(results: Results, context: Context) -> Iterator[str]:
    facts = context.facts
    kind = facts.get("image_kind") or facts.get("image_source") or "no facts beside it"
    yield f"image     {facts['image']}, {facts['image_bytes'] / MIB:.0f} MiB ({kind})"
    raw = (
        f"{name.removeprefix(RAW)} {count}" for name, count in facts.items() if name.startswith(RAW)
    )
    yield f"          {facts['data_pages']} pages not zero"
    yield f"          packets that do not get smaller: {', '.join(raw) or 'not counted'}"
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
    names = ("snapmig", "python", "isal", "zstandard", "lz4_package", "numpy", *programs)
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
    names = results.rows(operation, place, jobs, SNAPMIG, "peer")
    where, beside = (operation, place, jobs), ("time / snapmig's (quartiles)", rival)
    return figure_rows(results, where, names, (CPU, LENGTH, DISK), beside)


def _limits(results: Results, operation: str, place: str, jobs: int) -> Iterator[list[str]]:
    yield ["limits", "median s", "min", "max", "limit / snapmig", "limit / its own seconds"]
    for own in OWN:
        whole = results.times(operation, place, own.name, jobs)
        if own.codec is None or not whole:
            continue
        inner = results.times(operation, place, own.name, jobs, "inner_s")
        names = own.codec.limits[operation]
        first, second = (results.times(operation, place, name, jobs) for name in names)
        shared = (name.removesuffix(own.codec.suffix) for name in (*names, "both"))
        words = [f"{word}{own.codec.suffix}" for word in shared]
        whole_name = own.codec.whole_limits[operation]
        loop = results.times(operation, place, whole_name, jobs)
        rows = [*zip(words, (first, second, added(first, second)), strict=True), (whole_name, loop)]
        for word, times in rows:
            if times:
                yield [
                    word,
                    *seconds(times),
                    relative(ratio(times, whole)),
                    relative(ratio(times, inner)),
                ]


def _choices(results: Results, context: Context) -> list[str]:
    place = next(iter(context.destinations))
    found = choices(results, context)
    if not found:
        return []
    words = f"which to take when, by what was written to {place} ({context.destinations[place]})"
    return ["", words, *text_table(list(choice_rows(found)))]


def _variants(results: Results, context: Context) -> list[str]:
    place, jobs = next(iter(context.destinations)), context.job_counts[0]
    names = results.rows("save", place, jobs, "variant")
    if not names:
        return []
    beside = "time / snapmig's (quartiles)", lambda _name: SNAPMIG
    rows = figure_rows(results, ("save", place, jobs), (SNAPMIG, *names), (LENGTH, DISK), beside)
    return ["", f"save with other settings, written to {place}", *text_table(list(rows))]


def _startup(results: Results) -> Iterator[list[str]]:
    yield ["", "median s", "min", "max"]
    for name in STARTUP:
        yield [name, *seconds(results.times("start", "", name, 1))]


def _scaling(results: Results, context: Context, operation: str, place: str) -> Iterator[list[str]]:
    counts = context.job_counts
    yield ["", *(f"{jobs} jobs" for jobs in counts)]
    for name in results.rows(operation, place, counts[0], SNAPMIG, "peer", "limit"):
        base = results.times(operation, place, name, counts[0])
        cells = []
        for jobs in counts:
            times = results.times(operation, place, name, jobs)
            cells.append(f"{middle(times, '{:.3f}')}  {relative(ratio(base, times))}x")
        yield [name, *cells]


def _notes(results: Results, context: Context) -> Iterator[str]:
    yield ON_DISK
    yield "time / snapmig's: of snapmig with the same format and level."
    measured = {record["name"] for record in results.records}
    for peer in contestants(lz4_version=context.facts.get("version_lz4")):
        if peer.name in measured and peer not in OWN:
            yield f"{peer.name}: {peer.note}."
    yield "snapmig: its interpreter starts anew for each run, which its own seconds leave out."
    yield "bare save, bare restore: one loop of all the calls needed, no index, no counters."
    yield "other bare ...: in memory, page tables complete, packets dealt out by turns, no checks."
    yield OVER_BANDWIDTH
