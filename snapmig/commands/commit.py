"""``snapmig commit``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_progress
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import rate, say, show
from snapmig.commands.progress import show_progress
from snapmig.errors import UsageError
from snapmig.operations.shares import CommitResult, abandon, commit
from snapmig.units import format_count, format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig save --share 1/2 guest.ram guest.snap    # before it, on one host
  snapmig save --share 2/2 guest.ram guest.snap    # and on another one
  snapmig commit guest.snap
  snapmig commit --abandon guest.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "commit",
        help="join the shares of several hosts to a snapshot",
        usage="snapmig commit [options] SNAPSHOT",
        description="Join the shares saved by several hosts to one snapshot.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="as given to save --share")
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing SNAPSHOT")
    parser.add_argument("--abandon", action="store_true", help="remove the shares instead")
    add_keys(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.abandon:
        if options.force:
            raise UsageError("--abandon makes no snapshot, so --force can't be used with it")
        abandon(options.snapshot)
        return 0
    keys = chosen_keys(options)
    with show_progress(options, "committing") as progress:
        result = commit(options.snapshot, force=options.force, keys=keys, progress=progress)
    show(options, "commit", result, _print)
    return 0


def _print(result: CommitResult) -> None:
    shares = format_count(result.shares, "share")
    say(f"committed {rate(result.ram_size, result.seconds)}, {shares}")
    say(f"stored    {format_size(result.stored_size)}")
    say(f"snapshot  {result.snapshot}, {format_size(result.disk_size)} on disk")
