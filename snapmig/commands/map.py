"""``snapmig map``."""

from __future__ import annotations

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import say, show
from snapmig.commands.progress import show_progress
from snapmig.commands.style import STYLE, has_colours
from snapmig.errors import UsageError
from snapmig.operations.memory_map import MemoryMap, memory_map
from snapmig.system.files import check_destination
from snapmig.units import format_count, format_size

__all__ = ("add_parser",)

KINDS = (".svg", ".png", ".html")
LINES = 24
"""Of cells on a terminal, at most: a screen with what stands above and below them."""

_EPILOG = """\
examples:
  snapmig map guest.snap
  snapmig map guest.snap -o guest.svg
  snapmig map tuesday.snap --against monday.snap -o changes.html

Reads the index only; with --against what "snapmig diff" reads.
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "map",
        help="draw a guest's memory by the kinds of its pages",
        usage="snapmig map [options] SNAPSHOT",
        description="Draw the memory of a snapshot in cells, in the order of addresses: zero,\n"
        "compressed (by how much), stored as it is, the parent's, changed.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a snapshot")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="FILE.svg, FILE.png or FILE.html"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing FILE")
    parser.add_argument("--against", metavar="OLDER", help="show what changed since that snapshot")
    parser.add_argument(
        "--curve", action="store_true", help="along a Hilbert curve: neighbours stay together"
    )
    parser.add_argument("--cells", metavar="N", type=int, help="at most N cells (4096)")
    add_option(parser, "jobs")
    add_option(parser, "follow_remote_parents")
    add_keys(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    output: Path | None = options.output
    if output is not None and output.suffix not in KINDS:
        message = f"the name ends with {output.suffix!r}, expected {', '.join(KINDS)}"
        raise UsageError(message, path=str(output))
    if output is not None:
        check_destination(output, force=options.force)  # before a comparison that takes minutes
    colours = has_colours(sys.stdout)
    width = shutil.get_terminal_size((80, 25)).columns
    if options.cells is None:
        on_screen = width * LINES * (2 if colours else 1)
        options.cells = 4096 if output is not None or options.json else on_screen
    keys = chosen_keys(options, asks=options.against is not None)
    with show_progress(options, "comparing") as progress:
        made = call(memory_map, options, keys=keys, progress=progress)
    if output is not None:
        _write(made, output, curve=options.curve, force=options.force)
        show(options, "map", made, partial(_print_written, output=output))
    else:
        show(options, "map", made, partial(_print, width=width, colours=colours, options=options))
    return 0


def _write(made: MemoryMap, output: Path, *, curve: bool, force: bool) -> None:
    from snapmig.maps.drawing import draw  # noqa: PLC0415 - a terminal needs none of these
    from snapmig.maps.page import to_page  # noqa: PLC0415
    from snapmig.maps.png import to_png  # noqa: PLC0415
    from snapmig.maps.svg import to_svg  # noqa: PLC0415
    from snapmig.system.partial import write_file  # noqa: PLC0415

    if output.suffix == ".html":
        content = to_page(made, curve=curve).encode()
    elif output.suffix == ".png":
        content = to_png(draw(made, curve=curve))
    else:
        content = to_svg(draw(made, curve=curve)).encode()
    write_file(output, content, force=force)


def _print_written(made: MemoryMap, *, output: Path) -> None:
    cells = sum(len(block.cells) for block in made.blocks)
    say(f"map       {output}, {format_count(cells, 'cell')} of {format_size(made.cell_size)}")


def _print(made: MemoryMap, *, width: int, colours: bool, options: argparse.Namespace) -> None:
    from snapmig.maps.terminal import to_lines  # noqa: PLC0415 - a file needs none

    if STYLE.quiet:
        return
    for line in to_lines(made, width, colours=colours, curve=options.curve):
        print(line)  # made of printable names already, and of escape codes
