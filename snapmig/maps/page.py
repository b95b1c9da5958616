"""A map as a page that needs nothing from elsewhere."""

from __future__ import annotations

from html import escape

from snapmig.geometry import PAGE_SIZE
from snapmig.maps.cells import BlockMap, MemoryMap
from snapmig.maps.drawing import draw
from snapmig.maps.palette import BACKGROUND, DARK_BACKGROUND, DARK_TEXT, TEXT
from snapmig.maps.svg import style, to_svg
from snapmig.printable import printable
from snapmig.units import format_size

__all__ = ("to_page",)

_STYLE = (
    f"body{{margin:1rem;font:15px/1.5 system-ui,sans-serif;color:{TEXT};background:{BACKGROUND}}}"
    "figure{margin:0;overflow-x:auto}svg{max-width:100%;height:auto;min-width:40rem}"
    "table{border-collapse:collapse;margin-top:1rem}"
    "th,td{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #8884}"
    "th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere}"
    f"@media screen and (prefers-color-scheme:dark){{body{{color:{DARK_TEXT};"
    f"background:{DARK_BACKGROUND}}}}}"
)
_HEAD = ("RAM block", "address", "size", "not zero", "stored", "changed")


def to_page(made: MemoryMap, *, curve: bool = False) -> str:
    """Return an HTML document with the map and a table of RAM blocks."""
    drawing = draw(made, curve=curve)
    columns = len(_HEAD) - (made.against is None)
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEAD[:columns])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in _row(block)[:columns]) + "</tr>"
        for block in made.blocks
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(drawing.title)}</title>\n<style>{_STYLE}{style()}</style>\n</head>\n"
        f"<body>\n<figure>\n{to_svg(drawing, styled=False)}</figure>\n"
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        "</body>\n</html>\n"
    )


def _row(block: BlockMap) -> list[str]:
    cells = block.cells
    return [
        printable(block.block),
        ", ".join(f"{piece.gpa:#x}" for piece in block.pieces) or "unknown",
        format_size(block.size),
        format_size(sum(cell.in_use for cell in cells) * PAGE_SIZE),
        format_size(sum(cell.stored_size for cell in cells)),
        format_size(sum(cell.changed or 0 for cell in cells) * PAGE_SIZE),
    ]
