"""
Plots as SVG: bars, and lines over logarithmic axes; readable on light and dark pages.

The same data give the same bytes, so that a plot in the repository changes with its figures only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from tests.bench.summary import Times, spread

__all__ = ("Bar", "Line", "Panel", "bar", "bars", "lines")

WIDTH, MARGIN = 760, 16
ROW, LETTER = 22, 6.7
COLORS = ("#2da44e", "#3b82d6", "#d9822b", "#b15ad1", "#d1495b", "#8c959f", "#a17f1a")
STYLE = """\
text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:14px}
.soft{fill:#656d76}.grid{stroke:#d0d7de}.own{fill:#2da44e}.other{fill:#9aa5b1}.spread{stroke:#656d76}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.grid{stroke:#3d444d}
.other{fill:#656d76}.spread{stroke:#d0d7de}}"""


class Bar(NamedTuple):
    """A figure with its quartiles."""

    name: str
    value: float
    lower: float
    upper: float
    own: bool


def bar(name: str, times: Times, own: bool) -> Bar:
    """Return the bar of a figure of some rounds, at least one."""
    found = spread(times.values())
    if found is None:
        raise ValueError(f"{name}: nothing was measured")
    return Bar(name, found.median, found.lower, found.upper, own)


class Panel(NamedTuple):
    """Bars with a scale of their own."""

    title: str
    unit: str
    rows: Sequence[Bar]


class Line(NamedTuple):
    """Points of a line, from left to right; ``dashed`` for what is an assumption."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def bars(title: str, note: str, panels: Sequence[Panel]) -> str:
    """Return a picture of panels, one below the other."""
    names = [row.name for panel in panels for row in panel.rows]
    left = MARGIN + LETTER * max(map(len, names)) + 8
    top, found = 48.0, []
    for panel in panels:
        found += _panel(panel, left, top)
        top += ROW * (len(panel.rows) + 1.8)
    return _picture(title, note, found, top)


def lines(title: str, note: str, axes: tuple[str, str], series: Sequence[Line]) -> str:
    """
    Return a picture of lines over logarithmic axes.

    :param axes: titles of both, from left to right and from bottom to top
    """
    ends = [
        (min(values), max(values))
        for values in zip(*(point for line in series for point in line.points), strict=True)
    ]
    names = max(len(line.name) for line in series)
    box = (MARGIN + 52.0, 64.0, WIDTH - MARGIN - LETTER * names - 34, 400.0)
    found = [*_grid(ends, box), _text(MARGIN, 54, axes[1], "soft")]
    found.append(_text((box[0] + box[2]) / 2, box[3] + 36, axes[0], "soft", "middle"))
    for number, line in enumerate(series):
        color = COLORS[number % len(COLORS)]
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        path = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (_at(point, ends, box) for point in line.points)
        )
        found.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
        )
        at = box[1] + 10 + ROW * number
        x = box[2] + 12
        found.append(
            f'<path d="M{x:.1f} {at - 4:.1f}h16" stroke="{color}" stroke-width="3"{dash}/>'
        )
        found.append(_text(x + 22, at, line.name))
    return _picture(title, note, found, box[3] + 46)


def _panel(panel: Panel, left: float, top: float) -> Iterator[str]:
    yield _text(MARGIN, top + 14, panel.title, "title")
    longest = max(row.upper for row in panel.rows)
    scale = (WIDTH - MARGIN - 60 - left) / longest
    for number, row in enumerate(panel.rows, 1):
        y, end = top + ROW * number, left + row.value * scale
        kind = "own" if row.own else "other"
        yield _text(left - 8, y + 14, row.name, "", "end")
        size = f'width="{row.value * scale:.1f}" height="15"'
        yield f'<rect x="{left:.1f}" y="{y + 3:.1f}" {size} class="{kind}"/>'
        low, high = left + row.lower * scale, left + row.upper * scale
        if high - low > 1:
            yield f'<path d="M{low:.1f} {y + 10.5:.1f}H{high:.1f}" class="spread"/>'
        yield _text(max(end, high) + 6, y + 14, f"{row.value:.2f} {panel.unit}")


def _grid(ends: Sequence[tuple[float, float]], box: tuple[float, ...]) -> Iterator[str]:
    left, top, right, bottom = box
    for value in _ticks(*ends[0]):
        x, _ = _at((value, ends[1][0]), ends, box)
        yield f'<path d="M{x:.1f} {top}V{bottom}" class="grid"/>'
        yield _text(x, bottom + 16, f"{value:g}", "soft", "middle")
    for value in _ticks(*ends[1]):
        _, y = _at((ends[0][0], value), ends, box)
        yield f'<path d="M{left} {y:.1f}H{right:.1f}" class="grid"/>'
        yield _text(left - 6, y + 4, f"{value:g}", "soft", "end")


def _at(
    point: tuple[float, float], ends: Sequence[tuple[float, float]], box: tuple[float, ...]
) -> tuple[float, float]:
    shares = [
        math.log(value / low) / (math.log(high / low) or 1)
        for value, (low, high) in zip(point, ends, strict=True)
    ]
    left, top, right, bottom = box
    return left + shares[0] * (right - left), bottom - shares[1] * (bottom - top)


def _ticks(low: float, high: float) -> Iterator[float]:
    # Powers of two over a few, of ten over many.
    base = 2 if high / low <= 1024 else 10
    power = math.ceil(math.log(low, base) - 1e-9)
    while base**power <= high * (1 + 1e-9):
        yield base**power
        power += 1


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{style}{place}>{escape(words)}</text>'


def _picture(title: str, note: str, content: Sequence[str], height: float) -> str:
    whole = height + 24
    box = f'viewBox="0 0 {WIDTH} {whole:.0f}" width="{WIDTH}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    ends = [_text(MARGIN, 26, title, "title"), *content, _text(MARGIN, height + 12, note, "soft")]
    return "\n".join([head, *ends, "</svg>\n"])
