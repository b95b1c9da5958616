"""``snapmig diff``."""

from __future__ import annotations

import argparse
from functools import partial

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import percent, say, show
from snapmig.commands.progress import show_progress
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.diff import BlockDiff, DiffResult, diff
from snapmig.units import format_count, format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig diff monday.snap tuesday.snap
  snapmig diff --ranges monday.snap tuesday.snap
  snapmig diff --json monday.snap tuesday.snap

Addresses are guest physical where known, else offsets in the RAM block.
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "diff",
        help="show which pages of two snapshots differ",
        usage="snapmig diff [options] ONE OTHER",
        description="Show the pages that differ in two snapshots of a guest.",
        epilog=_EPILOG,
    )
    parser.add_argument("one", metavar="ONE", help="a snapshot")
    parser.add_argument("other", metavar="OTHER", help="another one of the same RAM blocks")
    add_option(parser, "jobs")
    parser.add_argument("--ranges", action="store_true", help="print each range of pages")
    add_option(parser, "follow_remote_parents")
    add_keys(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "comparing") as progress:
        result = call(diff, options, keys=keys, progress=progress)
    show(options, "diff", result, partial(_print, ranges=options.ranges))
    return 0


def _print(result: DiffResult, *, ranges: bool) -> None:
    say(
        f"changed   {format_size(result.changed_pages * PAGE_SIZE)}, "
        f"{percent(result.changed_pages, result.pages)} of the pages"
    )
    for block in result.blocks:
        if block.changed_pages:
            _print_block(block, ranges=ranges)


def _print_block(block: BlockDiff, *, ranges: bool) -> None:
    say(
        f"RAM block {block.block}: {block.changed_pages} of {format_count(block.pages, 'page')} "
        f"in {format_count(len(block.ranges), 'range')}"
    )
    for part in block.ranges if ranges else ():
        start = part.offset if part.gpa is None else part.gpa
        pages = format_count(part.pages, "page")
        say(f"  {start:#x}-{start + part.pages * PAGE_SIZE - 1:#x}  {pages}")
