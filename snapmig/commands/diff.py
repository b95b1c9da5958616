"""``snapmig diff``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import HelpFormatter, Verbs, add_common, add_jobs, add_progress
from snapmig.commands.output import percent, print_json, print_warnings
from snapmig.commands.progress import show_progress
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.diff import BlockDiff, DiffResult, diff
from snapmig.printable import printable
from snapmig.units import format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig diff monday.snap tuesday.snap
  snapmig diff --ranges monday.snap tuesday.snap
  snapmig diff --json monday.snap tuesday.snap

Addresses are guest physical ones where they are known, else offsets in the RAM
block.
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "diff",
        help="show which pages of two snapshots differ",
        usage="snapmig diff [options] ONE OTHER",
        description="Show which pages of two snapshots of a guest are not the same.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("one", metavar="ONE", help="a snapshot")
    parser.add_argument("other", metavar="OTHER", help="another one of the same RAM blocks")
    add_jobs(parser)
    parser.add_argument("--ranges", action="store_true", help="a line for each range of pages")
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with show_progress(options.progress, "comparing") as progress:
        result = diff(options.one, options.other, jobs=options.jobs, progress=progress)
    print_warnings(result.warnings)
    if options.json:
        print_json("diff", result)
    else:
        _print(result, ranges=options.ranges)
    return 0


def _print(result: DiffResult, *, ranges: bool) -> None:
    print(
        f"changed   {format_size(result.changed_pages * PAGE_SIZE)}, "
        f"{percent(result.changed_pages, result.pages)} of the pages"
    )
    for block in result.blocks:
        if block.changed_pages:
            _print_block(block, ranges=ranges)


def _print_block(block: BlockDiff, *, ranges: bool) -> None:
    print(
        f"RAM block {printable(block.block)}: {block.changed_pages} of {block.pages} pages "
        f"in {len(block.ranges)} ranges"
    )
    for part in block.ranges if ranges else ():
        start = part.offset if part.gpa is None else part.gpa
        print(f"  {start:#x}-{start + part.pages * PAGE_SIZE - 1:#x}  {part.pages} pages")
