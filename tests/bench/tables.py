"""Cells and lines of the tables that the benchmarks print."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from tests.bench.summary import Results, Spread, Times, ratios, spread

MIB = 1 << 20


class Column(NamedTuple):
    """
    A column with the medians of a figure.

    :param form: of a number
    :param unit: the figure is divided by it
    """

    title: str
    field: str
    form: str = "{:.2f}"
    unit: float = 1


CPU = Column("cpu s", "cpu_s")
LENGTH = Column("MiB", "output_bytes", "{:.1f}", MIB)
DISK = Column("disk MiB", "disk_bytes", "{:.1f}", MIB)


def figure_rows(
    results: Results,
    where: tuple[str, str | None, int],
    names: Sequence[str],
    columns: Sequence[Column],
    beside: tuple[str, Callable[[str], str]] | None = None,
    timed: str | None = "wall_s",
) -> Iterator[list[str]]:
    """
    Yield a table of contestants, a row each.

    :param where: operation, destination and jobs
    :param beside: title of a last column, and with whom each row is compared in it
    :param timed: the figure with median, least and greatest
    """
    operation, place, jobs = where
    times = partial(results.times, operation, place, jobs=jobs)
    titles = ["median s", "min", "max"] if timed else []
    yield ["", *titles, *(each.title for each in columns), *([beside[0]] if beside else [])]
    for name in names:
        cells = seconds(times(name=name, field=timed)) if timed else []
        cells += [
            middle(times(name=name, field=each.field), each.form, each.unit) for each in columns
        ]
        if beside and timed:
            other = times(name=beside[1](name), field=timed)
            cells.append(apart(ratios(times(name=name, field=timed), other)))
        yield [results.label(name), *cells]


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


def middle(values: Times, form: str = "{:.2f}", unit: float = 1) -> str:
    """Return the median of a figure."""
    return form.format(median(values.values()) / unit) if values else "-"


def relative(value: float | None) -> str:
    """Return a ratio."""
    return "-" if value is None else f"{value:.2f}"


def apart(found: Spread | None) -> str:
    """Return a ratio with its quartiles."""
    if found is None:
        return "-"
    return f"{found.median:.2f} ({found.lower:.2f} to {found.upper:.2f})"
