"""A map as SVG, in the colours of light and dark pages and of paper."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from snapmig.maps.drawing import Drawing, Rectangle, Text
from snapmig.maps.palette import (
    BACKGROUND,
    DARK_BACKGROUND,
    DARK_TEXT,
    PAINTS,
    TEXT,
    Paint,
    opacity,
)
from snapmig.maps.tones import Tone

__all__ = ("style", "to_svg")


def to_svg(drawing: Drawing, *, styled: bool = True) -> str:
    """
    Return an SVG document.

    :param styled: with its style; without, for a page that has :func:`style` once
    """
    width, height = drawing.width, drawing.height
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="map" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(drawing.title)}</title>",
            *([f"<style>{style()}</style>"] if styled else []),
            *_patterns(),
            f'<rect class="ground" width="{width}" height="{height}"/>',
            *(_shape(shape) for shape in drawing.shapes),
            "</svg>\n",
        ]
    )


def style() -> str:
    """Return the style sheet of maps."""
    light = _colours(TEXT, BACKGROUND, {tone: paint.light for tone, paint in PAINTS.items()})
    dark = _colours(
        DARK_TEXT, DARK_BACKGROUND, {tone: paint.dark for tone, paint in PAINTS.items()}
    )
    tones = "".join(
        f".map .{_name(tone)}{{fill:{_fill(tone, paint)}}}" for tone, paint in PAINTS.items()
    )
    return (
        f".map{{{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{.map{{{dark}}}}}"
        ".map{print-color-adjust:exact;font:12px system-ui,sans-serif}"
        ".map .ground{fill:var(--ground)}"
        ".map text{fill:var(--text)}.map .large{font-size:16px;font-weight:600}"
        f"{tones}"
    )


def _colours(text: str, ground: str, tones: dict[Tone, str]) -> str:
    named = "".join(f"--{_name(tone)}:{colour};" for tone, colour in tones.items())
    return f"--text:{text};--ground:{ground};{named}"


def _name(tone: Tone) -> str:
    return tone.name.lower()


def _fill(tone: Tone, paint: Paint) -> str:
    return f"url(#map-{_name(tone)})" if paint.hatch else f"var(--{_name(tone)})"


def _patterns() -> Iterator[str]:
    yield "<defs>"
    for tone, paint in PAINTS.items():
        if paint.hatch:
            name = _name(tone)
            yield (
                f'<pattern id="map-{name}" width="5" height="5" patternUnits="userSpaceOnUse" '
                f'patternTransform="rotate({-45 * paint.hatch})">'
                f'<rect width="5" height="5" style="fill:var(--{name})"/>'
                '<path d="M0 0H5" style="stroke:var(--ground)" stroke-width="2"/></pattern>'
            )
    yield "</defs>"


def _shape(shape: Rectangle | Text) -> str:
    if isinstance(shape, Text):
        kind = ' class="large"' if shape.large else ""
        anchor = ' text-anchor="end"' if shape.ends else ""
        return f'<text x="{shape.x}" y="{shape.y}"{kind}{anchor}>{escape(shape.text)}</text>'
    share = opacity(shape.look)
    pale = "" if share == 1 else f' opacity="{share:.1f}"'
    about = f"<title>{escape(shape.about)}</title>" if shape.about else ""
    return (
        f'<rect x="{shape.x}" y="{shape.y}" width="{shape.width}" height="{shape.height}" '
        f'class="{_name(shape.look.tone)}"{pale}>{about}</rect>'
    )
