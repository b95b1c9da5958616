"""``snapmig restore``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common, add_groups, add_option, add_progress
from snapmig.commands.output import percent, print_json, print_notice, print_warnings, rate, say
from snapmig.commands.progress import show_progress
from snapmig.commands.resume import resume_lines
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats import format_names
from snapmig.operations.options.table import GUEST, OPTIONS, OUTPUT
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
    add_option(parser, "jobs")
    how = parser.add_mutually_exclusive_group()
    add_option(how, "force", help="replace an existing IMAGE")
    how.add_argument(
        "--in-place",
        action="store_true",
        help="fill an existing IMAGE of the same size; a running\nprogram may have it mapped",
    )
    how.add_argument(
        "--for-qemu",
        action="store_true",
        help="make IMAGE a directory, and print the commands that\nresume the guest from it",
    )
    parser.add_argument("--block", metavar="NAME", help="only this RAM block (all, in order)")
    formats = format_names()
    words = f"of IMAGE: {', '.join(formats)}"
    add_option(groups[GUEST], "format", choices=formats, help=words, shown="as saved")
    for name in ("address", "arch"):
        add_option(groups[GUEST], name)
    groups[GUEST].add_argument(
        "--domain-xml",
        metavar="FILE",
        help="domain definition for --format libvirt (the\nattachment domain.xml)",
    )
    for name in ("monitor_timeout", "follow_remote_parents", "bwlimit", "accelerator", "depth"):
        add_option(groups[OPTIONS[name].group], name)
    add_progress(groups[OUTPUT])
    add_common(groups[OUTPUT])
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
