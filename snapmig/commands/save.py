"""``snapmig save``."""

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
from snapmig.commands.keys import chosen_to_save
from snapmig.commands.output import print_notice
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.errors import WARNINGS_EXIT_CODE, UsageError
from snapmig.images.formats import format_names
from snapmig.operations.options.table import KEYS, OUTPUT, options_of
from snapmig.operations.save import save

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig save --live qmp:/run/guest.qmp guest.snap
  snapmig save -j 4 guest.ram guest.snap -f --attach domain.xml=guest.xml --json
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "save",
        help="save a guest RAM image to a snapshot",
        usage="snapmig save [options] IMAGE SNAPSHOT",
        description="Save a guest RAM image (pause its guest first), or a running guest.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="a file, shared memory, qmp:SOCKET or libvirt:DOMAIN"
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the file to make, or s3://BUCKET/KEY")
    groups = add_groups(parser)
    formats = format_names(to_save=True)
    changes: dict[str, dict[str, Any]] = {"format": {"choices": formats, "help": " ".join(formats)}}
    for option in options_of("save"):
        add_option(groups[option.group], option.name, **changes.get(option.name, {}))
    add_keys(groups[KEYS], seals=True)
    add_progress(groups[OUTPUT])
    add_common(groups[OUTPUT])
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_to_save(options)
    attached = dict(options.attach)
    if len(attached) < len(options.attach):
        raise UsageError("--attach gives the same NAME twice")
    with show_progress(options, "saving") as progress:
        result = call(
            save, options, keys=keys, attach=attached, progress=progress, notice=print_notice
        )
    print_saved(options, "save", result, options.share)
    incomplete = result.torn_packets or result.left_out_blocks
    return WARNINGS_EXIT_CODE if incomplete else 0
