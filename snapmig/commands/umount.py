"""``snapmig umount``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, call
from snapmig.commands.output import say, show
from snapmig.operations.mount import MountResult, umount

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig umount /mnt/guest
  snapmig umount --lazy /mnt/guest
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "umount",
        help="unmount a snapshot",
        usage="snapmig umount [options] DIR",
        description="Unmount a snapshot, unless somebody still uses its files.",
        epilog=_EPILOG,
    )
    parser.add_argument("directory", metavar="DIR", help="where it is mounted")
    parser.add_argument("--lazy", action="store_true", help="hide it now; those who use it go on")
    parser.add_argument(
        "--force", action="store_true", help="end it now, and kill guests that map it"
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    show(options, "umount", call(umount, options), _print)
    return 0


def _print(result: MountResult) -> None:
    say(f"unmounted {result.directory}")
