"""A map as PNG, by Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.maps.drawing import Drawing, Rectangle, Text
from snapmig.maps.palette import BACKGROUND, PAINTS, TEXT, opacity

__all__ = ("to_png",)

SCALE = 2
"""Pixels of the file for one of the drawing, for sharp text on today's screens."""
_SIZES = {False: 12, True: 16}


def to_png(drawing: Drawing) -> bytes:
    """
    Return a PNG file's bytes, in the colours of a light page.

    :raises SnapmigError: Pillow is missing
    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "PNG files need the Python package Pillow: pip install 'snapmig[png]'"
        raise SnapmigError(message) from error
    image = Image.new("RGB", (drawing.width * SCALE, drawing.height * SCALE), BACKGROUND)
    pencil = ImageDraw.Draw(image)
    fonts = {large: ImageFont.load_default(size * SCALE) for large, size in _SIZES.items()}
    for shape in drawing.shapes:
        if isinstance(shape, Text):
            place = (shape.x * SCALE, shape.y * SCALE)
            anchor = "rs" if shape.ends else "ls"
            pencil.text(place, shape.text, fill=TEXT, font=fonts[shape.large], anchor=anchor)
        else:
            _fill(pencil, shape)
    content = BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def _fill(pencil: Any, shape: Rectangle) -> None:
    paint = PAINTS[shape.look.tone]
    left, top = shape.x * SCALE, shape.y * SCALE
    right, bottom = left + shape.width * SCALE, top + shape.height * SCALE
    pencil.rectangle((left, top, right - 1, bottom - 1), _mixed(paint.light, opacity(shape.look)))
    if not paint.hatch:
        return
    height = bottom - top
    for x in range(left - left % height, right, height // 2):
        ends = (x, bottom - 1, x + height, top) if paint.hatch > 0 else (x, top, x + height, bottom)
        start, y, stop, end = ends
        if left <= start and stop <= right:
            pencil.line((start, y, stop, end), BACKGROUND, SCALE)


def _mixed(colour: str, share: float) -> tuple[int, ...]:
    return tuple(
        round(share * int(colour[at : at + 2], 16) + (1 - share) * int(BACKGROUND[at : at + 2], 16))
        for at in (1, 3, 5)
    )
