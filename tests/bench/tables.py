"""SharedCounters and lines of the tables that the benchmarks print."""

from collections.abc import Sequence
from statistics import median

from tests.bench.summary import Times, spread

MIB = 1 << 20


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return lines


def verdict(measured: float | None, least: float) -> str:
    """Return a measured ratio and whether it reaches a target."""
    if measured is None:
        return "not measured"
    if measured >= least:
        return f"{measured:.2f} met"
    return f"{measured:.2f} short by {(1 - measured / least) * 100:.0f} %"


def verdict_at_most(measured: float | None, most: float) -> str:
    """Return a measured ratio and whether it stays below a limit."""
    if measured is None:
        return "not measured"
    if measured <= most:
        return f"{measured:.2f} met"
    return f"{measured:.2f} over by {(measured / most - 1) * 100:.0f} %"


def seconds(times: Times) -> list[str]:
    """Return median, least and greatest as cells of a table."""
    found = spread(times.values())
    if found is None:
        return ["-", "-", "-"]
    return [f"{value:.3f}" for value in (found.median, found.low, found.high)]


def middle(values: Times, form: str = "{:.2f}") -> str:
    """Return the median of a figure."""
    return form.format(median(values.values())) if values else "-"


def mebibytes(sizes: Times) -> str:
    """Return the median of sizes in bytes."""
    return f"{median(sizes.values()) / MIB:.1f}" if sizes else "-"


def relative(value: float | None) -> str:
    """Return a ratio."""
    return "-" if value is None else f"{value:.2f}"
