"""``snapmig thaw``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, add_option, add_progress, call
from snapmig.commands.output import rate, say, show
from snapmig.commands.progress import show_progress
from snapmig.operations.thaw import ThawResult, thaw

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig thaw /mnt/guest
  snapmig thaw /mnt/guest/guest.ram
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "thaw",
        help="read all of a mounted snapshot into memory",
        usage="snapmig thaw [options] DIR",
        description="Read a mount's RAM blocks, or a file of it, into the page cache.",
        epilog=_EPILOG,
    )
    parser.add_argument("path", metavar="DIR", help="where it is mounted, or a file there")
    add_option(parser, "jobs", help="reads side by side")
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with show_progress(options, "reading") as progress:
        result = call(thaw, options, progress=progress)
    show(options, "thaw", result, _print)
    return 0


def _print(result: ThawResult) -> None:
    say(f"read      {result.path}, {rate(result.size, result.seconds)}")
