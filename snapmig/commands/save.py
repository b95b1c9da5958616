"""``snapmig save``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import (
    HelpFormatter,
    Verbs,
    add_accelerator,
    add_common,
    add_jobs,
    add_progress,
    checked,
)
from snapmig.commands.output import percent, print_json, print_warnings, rate
from snapmig.commands.progress import show_progress
from snapmig.encodings.compressions import COMPRESSIONS
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats import format_names
from snapmig.operations.save import SaveResult, save
from snapmig.operations.settings import WINDOWS, parse_packet_size
from snapmig.units import format_duration, format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig save /dev/shm/guest.ram guest.snap
  snapmig save --live qmp:/run/guest.qmp guest.snap
  snapmig save -j 4 --compression zstd /proc/4242/fd/17 guest.snap
  snapmig save guest.ram guest.snap -f --attach domain.xml=guest.xml --json
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "save",
        help="save a guest RAM image to a snapshot",
        usage="snapmig save [options] IMAGE SNAPSHOT",
        description="Save a guest RAM image (pause its guest first), or a running guest.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "image", metavar="IMAGE", help="a file, shared memory, or qmp:SOCKET of a guest"
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the file to make")
    _add_source(parser)
    parser.add_argument(
        "--parent", metavar="OLDER", help="a snapshot: store only what changed since it"
    )
    add_jobs(parser)
    _add_encoding(parser)
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
        help="what IMAGE, a Firecracker diff, builds on; oldest first",
    )


def _add_encoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="zlib",
        help="zlib is read everywhere, lz4 is faster, zstd smaller",
    )
    add_accelerator(parser)
    parser.add_argument(
        "--level",
        metavar="N",
        help="zlib 0 to 9, zstd -7 to 19, lz4 1 to 12: faster to\n"
        "smaller; auto follows the speed of the disk (1)",
    )
    parser.add_argument(
        "--window",
        choices=WINDOWS,
        help="of zlib: history a decoder needs; 4k suits hardware (32k)",
    )
    parser.add_argument(
        "--huffman",
        choices=("dynamic", "fixed", "trained"),
        default="dynamic",
        help="tables of qpl accelerators (dynamic)",
    )
    parser.add_argument(
        "--packet-size",
        type=checked(parse_packet_size),
        metavar="SIZE",
        help="64K to 4M of RAM compressed at once (parent's, or 512K)",
    )
    parser.add_argument(
        "--layout",
        choices=("fixed", "packed"),
        default="fixed",
        help="fixed places and holes, or packed without (fixed)",
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
            progress=progress,
        )
    print_warnings(result.warnings)
    if options.json:
        print_json("save", result)
    else:
        _print(result)
    return 0


def _print(result: SaveResult) -> None:
    data_size = result.data_pages * PAGE_SIZE
    print(f"saved {rate(result.ram_size, result.seconds)}, {result.jobs} jobs")
    print(
        f"not zero  {format_size(data_size)} of {format_size(result.ram_size)} "
        f"({percent(data_size, result.ram_size)})"
    )
    if result.parent is not None:
        same, delta = result.same_pages * PAGE_SIZE, result.delta_pages * PAGE_SIZE
        print(
            f"parent    has {format_size(same)} ({percent(same, data_size)}), "
            f"{format_size(delta)} stored as differences"
        )
    print(
        f"stored    {format_size(result.stored_size)}, "
        f"{percent(result.stored_size, data_size)} of that"
    )
    print(f"by        {_coding(result)}")
    if result.pause_seconds is not None:
        changed = "" if result.changed_packets is None else f", {result.changed_packets} packets"
        print(f"paused    {format_duration(result.pause_seconds)}{changed and changed + ' again'}")
    print(f"snapshot  {result.snapshot}, {format_size(result.disk_size)} on disk")


def _coding(result: SaveResult) -> str:
    # What compressed, in words: "zlib level 1 (isal)".
    levels = " and ".join(result.levels)
    words = (
        result.compression
        if result.compression == "none"
        else f"{result.compression} level {levels}"
    )
    return f"{words} ({result.accelerator})" if result.accelerator else words
