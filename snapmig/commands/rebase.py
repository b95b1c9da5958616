"""``snapmig rebase``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.operations.rewrite import rebase

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig rebase tuesday.snap --parent sunday.snap
  snapmig rebase -j 2 tuesday.snap --parent sunday.snap --json

The snapshot gets a new id, so its own children must be rebased, too.
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "rebase",
        help="give a snapshot another parent",
        usage="snapmig rebase [options] SNAPSHOT --parent OTHER",
        description="Replace a snapshot by one with the same contents and the parent OTHER.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the snapshot to replace")
    parser.add_argument("--parent", metavar="OTHER", required=True, help="the new parent")
    add_option(parser, "jobs")
    add_option(parser, "page_digests", default=None, default_text="unchanged")
    add_option(parser, "deltas")
    add_option(parser, "follow_remote_parents")
    add_keys(parser, locks=True)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "rebasing") as progress:
        result = call(rebase, options, keys=keys, progress=progress)
    print_saved(options, "rebase", result)
    return 0
