"""``snapmig chain``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import percent, say, show
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.chain import ChainLink, chain
from snapmig.units import format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig chain tuesday.snap
  snapmig chain --json tuesday.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "chain",
        help="show a snapshot and its parents",
        usage="snapmig chain [options] SNAPSHOT",
        description="Show a snapshot and its parents, the newest first.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a snapshot made by save")
    add_option(parser, "follow_remote_parents")
    add_keys(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    for link in call(chain, options, keys=chosen_keys(options, asks=False)):
        show(options, "chain", link, _print)
    return 0


def _print(link: ChainLink) -> None:
    kind = "full" if link.parent_id is None else "incremental"
    changed = min(link.changed_pages * PAGE_SIZE, link.ram_size)
    say(link.snapshot)
    sealing = "" if link.sealing == "none" else f", {link.sealing}"
    say(f"  {link.created}, {kind}{sealing}, {format_size(link.disk_size)} on disk")
    say(
        f"  stores {format_size(changed)} of {format_size(link.ram_size)} "
        f"({percent(changed, link.ram_size)}), id {link.snapshot_id}"
    )
