"""``snapmig restore``."""

from __future__ import annotations

import argparse
import shlex

from snapmig.commands.arguments import (
    HelpFormatter,
    Verbs,
    add_accelerator,
    add_addresses,
    add_bwlimit,
    add_common,
    add_jobs,
    add_progress,
)
from snapmig.commands.output import percent, print_json, print_warnings, rate
from snapmig.commands.progress import show_progress
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats import format_names
from snapmig.operations.restore import restore
from snapmig.units import format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig restore guest.snap guest.ram
  snapmig restore -j 4 -f guest.snap /dev/shm/guest.ram
  snapmig restore guest.snap qmp:/run/guest.qmp
  snapmig restore --in-place guest.snap /proc/4242/fd/17
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "restore",
        help="restore a snapshot to a guest RAM image",
        usage="snapmig restore [options] SNAPSHOT IMAGE",
        description="Restore a snapshot to an image of the guest's RAM, or into a QEMU.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="what save made")
    parser.add_argument("image", metavar="IMAGE", help="the image to make or fill, or qmp:SOCKET")
    parser.add_argument(
        "--format",
        choices=format_names(),
        metavar="FORMAT",
        help=f"of IMAGE: {', '.join(format_names())} (as saved)",
    )
    add_jobs(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-f", "--force", action="store_true", help="replace an existing IMAGE")
    how.add_argument(
        "--in-place",
        action="store_true",
        help="fill an existing IMAGE of the same size, also while\nit is mapped elsewhere",
    )
    how.add_argument(
        "--for-qemu",
        action="store_true",
        help="make the directory IMAGE, and print the commands that\nresume the guest from it",
    )
    parser.add_argument("--block", metavar="NAME", help="only this RAM block (all, in order)")
    add_addresses(parser)
    add_accelerator(parser)
    add_bwlimit(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with show_progress(options.progress, "restoring") as progress:
        result = restore(
            options.snapshot,
            options.image,
            format=options.format,
            jobs=options.jobs,
            force=options.force,
            in_place=options.in_place,
            block=options.block,
            address=options.address,
            arch=options.arch,
            for_qemu=options.for_qemu,
            accelerator=options.accelerator,
            depth=options.depth,
            bwlimit=options.bwlimit,
            progress=progress,
        )
    print_warnings(result.warnings)
    if options.json:
        print_json("restore", result)
        return 0
    data_size = result.data_pages * PAGE_SIZE
    print(f"restored {rate(result.ram_size, result.seconds)}, {result.jobs} jobs")
    print(f"not zero  {format_size(data_size)} ({percent(data_size, result.ram_size)})")
    print(f"image     {result.image}")
    if result.qemu_arguments is not None:
        print(f"start     {shlex.join(result.qemu_arguments)}")
        for command in result.monitor_commands or ():
            print(f"monitor   {command}")
    return 0
