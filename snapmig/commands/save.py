"""``snapmig save``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import (
    Verbs,
    add_bwlimit,
    add_common,
    add_encoding,
    add_jobs,
    add_monitor_timeout,
    add_progress,
    add_remote_parents,
    checked,
)
from snapmig.commands.output import print_notice
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.errors import WARNINGS_EXIT_CODE, UsageError
from snapmig.images.formats import format_names
from snapmig.operations.save import save

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig save /dev/shm/guest.ram guest.snap
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
        "image", metavar="IMAGE", help="a file, shared memory, or qmp:SOCKET of a guest"
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the file to make, or s3://BUCKET/KEY")
    _add_source(parser)
    parser.add_argument(
        "--parent", metavar="OLDER", help="a snapshot: store only what changed since it"
    )
    parser.add_argument(
        "--deltas",
        action=argparse.BooleanOptionalAction,
        help="store differences (if OLDER has no page digests)",
    )
    add_jobs(parser)
    add_encoding(parser)
    parser.add_argument(
        "--attach",
        action="append",
        default=[],
        type=checked(_parse_attachment),
        metavar="NAME=FILE",
        help="keep a file in the snapshot; may be repeated",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing SNAPSHOT")
    parser.add_argument(
        "--live", action="store_true", help="let a running guest run, pause for changes only"
    )
    parser.add_argument(
        "--share", metavar="K/N", help="only part K of N, see docs/cluster.md; then commit"
    )
    add_bwlimit(parser)
    add_monitor_timeout(parser)
    add_remote_parents(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=format_names(to_save=True),
        metavar="FORMAT",
        help=f"of IMAGE: {', '.join(format_names(to_save=True))} (by content)",
    )
    parser.add_argument(
        "--base",
        action="append",
        default=[],
        metavar="FILE",
        help="what IMAGE, a Firecracker diff, builds on",
    )


def _parse_attachment(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise UsageError(f"{text!r} is not NAME=FILE")
    return name, path


def _run(options: argparse.Namespace) -> int:
    names = [name for name, _ in options.attach]
    if len(set(names)) != len(names):
        raise UsageError("--attach gives the same NAME twice")
    with show_progress(options.progress, "saving") as progress:
        result = save(
            options.image,
            options.snapshot,
            format=options.format,
            base=options.base,
            parent=options.parent,
            deltas=options.deltas,
            page_digests=options.page_digests,
            jobs=options.jobs,
            compression=options.compression,
            accelerator=options.accelerator,
            level=options.level,
            huffman=options.huffman,
            depth=options.depth,
            window=options.window,
            packet_size=options.packet_size,
            layout=options.layout,
            attach=dict(options.attach),
            force=options.force,
            live=options.live,
            share=options.share,
            bwlimit=options.bwlimit,
            monitor_timeout=options.monitor_timeout,
            follow_remote_parents=options.follow_remote_parents,
            progress=progress,
            notice=print_notice,
        )
    print_saved(options, "save", result, options.share)
    incomplete = result.torn_packets or result.left_out_blocks
    return WARNINGS_EXIT_CODE if incomplete else 0
