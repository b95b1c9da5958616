"""``snapmig restore``."""

from __future__ import annotations

import argparse
import sys
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
from snapmig.commands.output import error_line, percent, print_notice, range_lines, rate, say, show
from snapmig.commands.progress import show_progress
from snapmig.commands.style import STYLE
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats import format_names
from snapmig.operations.options.parse import WAYS
from snapmig.operations.options.table import KEYS, OUTPUT, options_of
from snapmig.operations.restore import RestoreResult, restore
from snapmig.printable import printable, shell_words
from snapmig.units import format_count, format_size

__all__ = ("add_parser", "loss_lines", "resume_lines")

_EPILOG = """\
examples:
  snapmig restore guest.snap guest.ram
  snapmig restore -j 4 -f guest.snap /dev/shm/guest.ram
  snapmig restore guest.snap qmp:/run/guest.qmp
  snapmig restore --postcopy guest.snap qmp:/run/guest.qmp
  snapmig restore --in-place guest.snap /proc/4242/fd/17
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "restore",
        help="restore a snapshot to a guest RAM image",
        usage="snapmig restore [options] SNAPSHOT IMAGE",
        description="Restore a snapshot to a guest RAM image, or into a waiting QEMU process.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "snapshot", metavar="SNAPSHOT", help="a file or s3://BUCKET/KEY made by save"
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="the image to make or fill, or qmp:SOCKET of a QEMU"
    )
    groups = add_groups(parser)
    formats = format_names()
    words = f"of IMAGE: {', '.join(formats)}"
    changes: dict[str, dict[str, Any]] = {
        "format": {"choices": formats, "help": words, "default_text": "as saved"},
        "force": {"help": "replace an existing IMAGE"},
        "via": {"choices": WAYS, "help": "shared, multifd or mapped-ram, see docs/guests.md"},
    }
    how = parser.add_mutually_exclusive_group()
    for option in options_of("restore"):
        group = how if option.name in ("force", "in_place", "for_qemu") else groups[option.group]
        add_option(group, option.name, **changes.get(option.name, {}))
    add_keys(groups[KEYS])
    add_progress(groups[OUTPUT])
    add_common(groups[OUTPUT])
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "restoring") as progress:
        result = call(restore, options, keys=keys, progress=progress, notice=print_notice)
    show(options, "restore", result, _print)
    return result.exit_code


def _print(result: RestoreResult) -> None:
    data_size = min(result.data_pages * PAGE_SIZE, result.ram_size)
    for problem in result.problems:
        print(error_line(problem), file=sys.stderr)
    say(f"restored {rate(result.ram_size, result.seconds)}, {format_count(result.jobs, 'job')}")
    say(f"not zero  {format_size(data_size)} ({percent(data_size, result.ram_size)})")
    if STYLE.verbose and result.accelerator is not None:
        say(f"by        {result.accelerator}")
    if result.kept_packets is not None:
        say(f"kept      {format_count(result.kept_packets, 'packet')} that were right already")
    if result.via is not None:
        say(f"via       {result.via}")
    if result.seconds_to_run is not None:
        say(f"running   after {result.seconds_to_run:.2f} s")
    if result.packets_asked_for is not None:
        before = f", {result.packets_before_run} sent before" if result.packets_before_run else ""
        say(f"asked for {format_count(result.packets_asked_for, 'packet')}{before}")
    say(f"image     {result.image}")
    for line in (*resume_lines(result), *loss_lines(result)):
        say(line)


def loss_lines(result: RestoreResult) -> list[str]:
    """Return what was lost in a restore that kept going, else nothing."""
    lines = [f"lost      attachment {name}" for name in result.lost_attachments]
    if result.lost_pages:
        size = format_size(min(result.lost_pages * PAGE_SIZE, result.ram_size))
        lines.append(f"lost      {size}, zeros in their place:")
        lines += range_lines(result.lost, result.lost_ranges)
    return lines


def resume_lines(result: RestoreResult) -> list[str]:
    """Return the commands after a restore for QEMU, quoted for a shell, else none."""
    if result.qemu_arguments is None:
        return []
    mount = result.mount_arguments
    return [
        "resume    by these commands; that of QEMU comes from the snapshot: read it before you",
        "          run it, unless you trust the maker of that file",
        *([] if mount is None else [f"mount     {shell_words(mount)}"]),
        f"start     {shell_words(result.qemu_arguments)}",
        *(f"monitor   {printable(command)}" for command in result.monitor_commands or ()),
    ]
