"""The plot: bars of medians with whiskers from the fastest to the slowest round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.contestants import SNAPMIG
from tests.bench.plan import OPERATIONS
from tests.bench.report import LIMITS, Context
from tests.bench.summary import Results, Times, added, ratio, spread

OWN, OTHER, LIMIT = "#0b6e4f", "#9aa5b1", "#c8553d"

mpl.use("Agg")


def draw(results: Results, context: Context, path: Path) -> None:
    """Draw times of saves and restores, a panel for each operation and destination."""
    places = list(context.destinations)
    figure, grid = _panels(len(OPERATIONS), len(places))
    jobs = context.job_counts[0]
    for row, operation in enumerate(OPERATIONS):
        for column, place in enumerate(places):
            axes = grid[row][column]
            _bars(axes, results, operation, place, jobs)
            kind = context.destinations[place]
            axes.set_title(f"{operation} to {place} ({kind})", loc="left", fontweight="bold")
    grid[0][0].legend(
        handles=_legend(), loc="lower right", fontsize="small", frameon=True, framealpha=0.9
    )
    _finish(figure, context, f"{jobs} jobs, shorter is faster", path)


def draw_scaling(results: Results, context: Context, path: Path) -> None:
    """Draw the speed-up over the number of jobs."""
    places = list(context.destinations)
    figure, grid = _panels(len(OPERATIONS), len(places))
    for row, operation in enumerate(OPERATIONS):
        for column, place in enumerate(places):
            _lines(grid[row][column], results, context, operation, place)
    _finish(figure, context, "speed-up against one job", path)


def _panels(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.2 * columns, 3.4 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _bars(axes: Any, results: Results, operation: str, place: str, jobs: int) -> None:
    names = results.rows(operation, place, jobs, SNAPMIG, "peer")
    times = [results.times(operation, place, name, jobs) for name in names]
    spreads = [found for found in (spread(one.values()) for one in times) if found]
    middles = [found.median for found in spreads]
    low = [found.median - found.low for found in spreads]
    high = [found.high - found.median for found in spreads]
    colors = [OWN if name == SNAPMIG else OTHER for name in names]
    axes.barh(names, middles, color=colors, xerr=[low, high], ecolor="#333333", capsize=3)
    own = times[names.index(SNAPMIG)]
    longest = max(found.high for found in spreads)
    for at, (found, one) in enumerate(zip(spreads, times, strict=True)):
        relative = ratio(one, own) or 0.0
        words = f"{found.median:.2f} s" + ("" if names[at] == SNAPMIG else f"  ({relative:.2f}x)")
        axes.text(found.high + longest * 0.015, at, words, va="center", fontsize="small")
    first, second = (results.times(operation, place, name, jobs) for name in LIMITS[operation])
    _limit_line(axes, first, "--")
    _limit_line(axes, added(first, second), ":")
    axes.set_xlim(0, longest * 1.22)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of the whole process, output synced")
    _plain(axes)


def _limit_line(axes: Any, times: Times, style: str) -> None:
    if found := spread(times.values()):
        axes.axvline(found.median, color=LIMIT, linestyle=style, linewidth=1.5)


def _legend() -> Sequence[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return (
        Patch(color=OWN, label="snapmig"),
        Patch(color=OTHER, label="others (time / snapmig's time)"),
        Line2D([], [], color=LIMIT, linestyle="--", label="limit: bare ISA-L calls in memory"),
        Line2D([], [], color=LIMIT, linestyle=":", label="limit: and page allocation"),
        Line2D([], [], color="#333333", marker="|", label="fastest to slowest round"),
    )


def _lines(axes: Any, results: Results, context: Context, operation: str, place: str) -> None:
    counts = context.job_counts
    axes.plot(counts, counts, color="#dddddd", label="as many times as jobs")
    for name in results.rows(operation, place, counts[0], SNAPMIG, "peer", "limit"):
        base = results.times(operation, place, name, counts[0])
        speed = [ratio(base, results.times(operation, place, name, jobs)) for jobs in counts]
        style = "--" if name.startswith("bare") else "-"
        width = 2.5 if name == SNAPMIG else 1.3
        color = OWN if name == SNAPMIG else None
        axes.plot(counts, speed, style, marker="o", linewidth=width, color=color, label=name)
    axes.set_xticks(counts)
    axes.set_xlabel("jobs")
    axes.set_ylabel("times as fast as one job")
    axes.set_title(f"{operation} to {place}", loc="left", fontweight="bold")
    axes.legend(fontsize="small", frameon=False)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _finish(figure: Figure, context: Context, words: str, path: Path) -> None:
    facts = context.facts
    title = (
        f"{facts['image']}, {facts['image_bytes'] / (1 << 20):.0f} MiB, {words}\n"
        f"{facts['machine_cpu']}, {facts['machine_processors']} processors, "
        f"medians of {context.rounds} rounds"
    )
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=130)
