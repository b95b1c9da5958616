"""``snapmig repack``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import (
    Verbs,
    add_common,
    add_encoding,
    add_jobs,
    add_progress,
    add_remote_parents,
)
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.operations.rewrite import repack

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig repack guest.snap small.snap --compression zstd --level 9
  snapmig repack guest.snap hardware.snap --window 4k
  snapmig repack guest.snap upload.snap --layout packed
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "repack",
        help="store a snapshot in another form",
        usage="snapmig repack [options] SNAPSHOT OUT",
        description="Make a snapshot with the same contents in another form. What is not given\n"
        "stays as it is.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="what save made")
    parser.add_argument("out", metavar="OUT", help="the file to make")
    add_jobs(parser)
    add_encoding(parser, again=True)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing OUT")
    add_remote_parents(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with show_progress(options.progress, "repacking") as progress:
        result = repack(
            options.snapshot,
            options.out,
            compression=options.compression,
            accelerator=options.accelerator,
            level=options.level,
            window=options.window,
            packet_size=options.packet_size,
            layout=options.layout,
            page_digests=options.page_digests,
            jobs=options.jobs,
            force=options.force,
            follow_remote_parents=options.follow_remote_parents,
            progress=progress,
        )
    print_saved(options, "repack", result)
    return 0
