"""``snapmig repack``."""

from __future__ import annotations

import argparse
from typing import Any

from snapmig.commands.arguments import (
    Verbs,
    add_common,
    add_groups,
    add_keys,
    add_option,
    add_progress,
    call,
)
from snapmig.commands.keys import chosen_keys
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.operations.options.keys import SEALINGS
from snapmig.operations.options.table import KEYS, OPTIONS, OUTPUT
from snapmig.operations.rewrite import repack

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig repack guest.snap small.snap --compression zstd --level 9
  snapmig repack guest.snap hardware.snap --window 4k
  snapmig repack guest.snap upload.snap --layout packed
"""

_KEPT = ("compression", "layout", "packet_size", "page_digests", "window")
_OPTIONS = (
    *("compression", "level", "jobs", "force", "follow_remote_parents"),
    *("layout", "packet_size", "page_digests", "deltas", "accelerator", "depth", "window"),
)


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "repack",
        help="store a snapshot in another form",
        usage="snapmig repack [options] SNAPSHOT OUT",
        description="Make a snapshot of the same contents in the form that the options say.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a snapshot")
    parser.add_argument("out", metavar="OUT", help="the file to make")
    groups = add_groups(parser)
    kept = {"default": None, "default_text": "as it is"}
    changes: dict[str, dict[str, Any]]
    changes = {**dict.fromkeys(_KEPT, kept), "force": {"help": "replace an existing OUT"}}
    for name in _OPTIONS:
        add_option(groups[OPTIONS[name].group], name, **changes.get(name, {}))
    groups[KEYS].add_argument(
        "--sealing", choices=SEALINGS, metavar="HOW", help="encrypted, signed or none (as it is)"
    )
    add_keys(groups[KEYS], locks=True)
    add_progress(groups[OUTPUT])
    add_common(groups[OUTPUT])
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "repacking") as progress:
        result = call(repack, options, keys=keys, progress=progress)
    print_saved(options, "repack", result)
    return 0
