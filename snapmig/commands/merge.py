"""``snapmig merge``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.operations.rewrite import merge

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig merge tuesday.snap standalone.snap
  snapmig merge -f tuesday.snap tuesday.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "merge",
        help="make a snapshot independent of its parents",
        usage="snapmig merge [options] SNAPSHOT OUT",
        description="Copy an incremental snapshot to one that needs no parent.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="an incremental snapshot")
    parser.add_argument("out", metavar="OUT", help="the file to make")
    add_option(parser, "jobs")
    add_option(parser, "page_digests", default=None, default_text="unchanged")
    add_option(parser, "force", help="replace an existing OUT")
    add_option(parser, "follow_remote_parents")
    add_keys(parser, locks=True)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "merging") as progress:
        result = call(merge, options, keys=keys, progress=progress)
    print_saved(options, "merge", result)
    return 0
