"""``snapmig restore``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import (
    Verbs,
    add_accelerator,
    add_bwlimit,
    add_common,
    add_jobs,
    add_monitor_timeout,
    add_progress,
    add_remote_parents,
)
from snapmig.commands.output import percent, print_json, print_notice, print_warnings, rate, say
from snapmig.commands.progress import show_progress
from snapmig.commands.resume import resume_lines
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats import format_names
from snapmig.operations.restore import restore
from snapmig.units import format_count, format_size

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
    parser.add_argument(
        "--domain-xml",
        metavar="FILE",
        help="the domain's definition, for --format libvirt\n(the attachment domain.xml)",
    )
    add_accelerator(parser)
    add_bwlimit(parser)
    add_monitor_timeout(parser)
    add_remote_parents(parser)
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
            for_qemu=options.for_qemu,
            domain_xml=options.domain_xml,
            accelerator=options.accelerator,
            depth=options.depth,
            bwlimit=options.bwlimit,
            monitor_timeout=options.monitor_timeout,
            follow_remote_parents=options.follow_remote_parents,
            progress=progress,
            notice=print_notice,
        )
    print_warnings(result.warnings)
    if options.json:
        print_json("restore", result)
        return 0
    data_size = min(result.data_pages * PAGE_SIZE, result.ram_size)
    say(f"restored {rate(result.ram_size, result.seconds)}, {format_count(result.jobs, 'job')}")
    say(f"not zero  {format_size(data_size)} ({percent(data_size, result.ram_size)})")
    say(f"image     {result.image}")
    for line in resume_lines(result):
        say(line)
    return 0
