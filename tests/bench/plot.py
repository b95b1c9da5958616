"""The plot: bars of medians with whiskers from the fastest to the slowest round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.contestants import OWN, OWN_NAMES, SNAPMIG, rival
from tests.bench.summary import Context, Results, added, ratio, spread

OURS, OTHER, LIMIT = "#0b6e4f", "#9aa5b1", "#c8553d"
BAR_HEIGHT = 0.33
"""Of a bar with the gap to the next, in inches."""

mpl.use("Agg")


def draw(results: Results, context: Context, path: Path) -> None:
    """Draw times of saves and restores, a panel for each operation and destination."""
    places, jobs = list(context.destinations), context.job_counts[0]
    most = max(
        len(results.rows(operation, places[0], jobs, SNAPMIG, "peer"))
        for operation in context.operations
    )
    height = max(3.4, 1 + BAR_HEIGHT * most)
    figure, grid = _panels(len(context.operations), len(places), height)
    for row, operation in enumerate(context.operations):
        for column, place in enumerate(places):
            axes = grid[row][column]
            _bars(axes, results, operation, place, jobs)
            kind = context.destinations[place]
            axes.set_title(f"{operation} to {place} ({kind})", loc="left", fontweight="bold")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=3, fontsize="small")
    _finish(figure, context, f"{jobs} jobs, shorter is faster", path)


def draw_scaling(results: Results, context: Context, path: Path) -> None:
    """Draw the speed-up over the number of jobs."""
    places = list(context.destinations)
    figure, grid = _panels(len(context.operations), len(places), 4.2)
    for row, operation in enumerate(context.operations):
        for column, place in enumerate(places):
            _lines(grid[row][column], results, context, operation, place)
    _finish(figure, context, "speed-up against one job", path)


def _panels(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.2 * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _bars(axes: Any, results: Results, operation: str, place: str, jobs: int) -> None:
    names = results.rows(operation, place, jobs, SNAPMIG, "peer")
    times = [results.times(operation, place, name, jobs) for name in names]
    spreads = [found for found in (spread(one.values()) for one in times) if found]
    middles = [found.median for found in spreads]
    low = [found.median - found.low for found in spreads]
    high = [found.high - found.median for found in spreads]
    colors = [OURS if name in OWN_NAMES else OTHER for name in names]
    axes.barh(names, middles, color=colors, xerr=[low, high], ecolor="#333333", capsize=3)
    longest = max(found.high for found in spreads)
    for at, (found, one) in enumerate(zip(spreads, times, strict=True)):
        relative = ratio(one, results.times(operation, place, rival(names[at]), jobs))
        known = relative is not None and names[at] not in OWN_NAMES
        words = f"{found.median:.2f} s" + (f"  ({relative:.2f}x)" if known else "")
        axes.text(found.high + longest * 0.015, at, words, va="center", fontsize="small")
    for own in OWN:
        if own.codec and own.name in names:
            parts = [
                results.times(operation, place, it, jobs) for it in own.codec.limits[operation]
            ]
            for limit, style in ((parts[0], "-"), (added(*parts), ":")):
                if middle := spread(limit.values()):
                    at = names.index(own.name)
                    ends = (at - 0.48, at + 0.48)
                    axes.plot([middle.median] * 2, ends, style, color=LIMIT, linewidth=2)
    axes.set_xlim(0, longest * 1.22)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of the whole process, output synced")
    _plain(axes)


def _legend() -> Sequence[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return (
        Patch(color=OURS, label="snapmig"),
        Patch(color=OTHER, label="others (time / that of snapmig's same format)"),
        Line2D([], [], color=LIMIT, linestyle="-", label="limit: bare calls in memory"),
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
        width = 2.5 if name in OWN_NAMES else 1.3
        color = OURS if name == SNAPMIG else None
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
