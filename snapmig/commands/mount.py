"""``snapmig mount``."""

from __future__ import annotations

import argparse
from functools import partial

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import print_notice, say, show
from snapmig.operations.mount import MountResult, mount
from snapmig.operations.runs.random_access import CACHE

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig mount guest.snap /mnt/guest
  snapmig mount --foreground guest.snap /mnt/guest
  snapmig mount /backup/vms /mnt/backups
  snapmig umount /mnt/guest
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "mount",
        help="show a snapshot as a folder of files",
        usage="snapmig mount [options] SNAPSHOT DIR",
        description="Mount a snapshot: its RAM as files, decoded as they are read.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="made by save, or a folder of such")
    parser.add_argument("directory", metavar="DIR", help="where to mount it")
    add_option(parser, "jobs", help="threads that decode")
    parser.add_argument(
        "--cache", default=CACHE, metavar="SIZE", help=f"decoded packets to keep ({CACHE})"
    )
    parser.add_argument(
        "--foreground", action="store_true", help="serve here until it is unmounted"
    )
    parser.add_argument("--allow-other", action="store_true", help="let other users read, too")
    parser.add_argument("--log", metavar="FILE", help="for messages of the server (syslog)")
    parser.add_argument(
        "--working-set", metavar="FILE", help="what is read: kept, or decoded ahead"
    )
    parser.add_argument("--overlay", metavar="FILE", help="takes writes to the RAM")
    add_option(parser, "follow_remote_parents")
    add_keys(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    result = call(mount, options, keys=chosen_keys(options), notice=print_notice)
    show(options, "mount", result, partial(_print, ended=options.foreground))
    return 0


def _print(result: MountResult, *, ended: bool) -> None:
    if ended:
        return
    say(f"mounted   {result.snapshot}")
    say(f"at        {result.directory}, served by process {result.pid}")
