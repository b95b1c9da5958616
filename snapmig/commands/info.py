"""``snapmig info``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common
from snapmig.commands.output import percent, say, show
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.operations.info import SnapshotInfo, info
from snapmig.units import format_size

__all__ = ("add_parser",)

_SHOWN_PIECES = 8

_EPILOG = """\
examples:
  snapmig info guest.snap
  snapmig info --json guest.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "info",
        help="show the facts of a snapshot",
        usage="snapmig info [options] SNAPSHOT",
        description="Show the facts of a snapshot without reading its packets.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a snapshot made by save")
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    show(options, "info", info(options.snapshot), _print)
    return 0


def _print(result: SnapshotInfo) -> None:
    data_size = min(result.data_pages * PAGE_SIZE, result.ram_size)
    packets = ", ".join(f"{count} {name}" for name, count in result.packets.items() if count)
    say(f"snapshot     {result.snapshot}")
    say(f"id           {result.snapshot_id}")
    way = "" if result.via is None else f" via {result.via}"
    say(f"created      {result.created}, from {result.source}{way}")
    digests = ", with page digests" if result.page_digests else ""
    if result.architecture is not None:
        say(f"processors   {result.architecture}")
    say(f"format       {result.format_version}, {result.layout} layout{digests}")
    total = sum(result.packets.values())
    say(f"packets      {total} of {format_size(result.packet_size)}: {packets}")
    if result.packets["deflate"]:
        say(f"window       {format_size(1 << result.window_bits)}")
    say(
        f"RAM          {format_size(result.ram_size)}, {format_size(data_size)} of it not zero "
        f"({percent(data_size, result.ram_size)})"
    )
    if result.parent_id is not None:
        same, delta = result.same_pages * PAGE_SIZE, result.delta_pages * PAGE_SIZE
        say(
            f"parent       {result.parent_id}, has {format_size(same)} "
            f"({percent(same, data_size)}); {format_size(delta)} are differences"
        )
    say(
        f"stored       {format_size(result.stored_size)}, "
        f"{percent(result.stored_size, data_size)} of what is not zero"
    )
    say(f"on disk      {format_size(result.disk_size)}")
    for block in result.blocks:
        pages = "" if block.page_size == PAGE_SIZE else f", {format_size(block.page_size)} pages"
        inside = "" if block.offset is None else f", to map from {block.offset:#x}"
        size = format_size(block.size)
        say(f"RAM block    {block.name}: {size}{_places(block)}{pages}{inside}")
    for missing in result.left_out_blocks:
        say(
            f"RAM missing  {missing.name}: {format_size(missing.size)}, left out by x-ignore-shared"
        )
    for entry in result.attachments:
        say(f"attachment   {entry.name}: {format_size(entry.size)}")


def _places(block: RamBlock) -> str:
    # "at 0x0", or each piece: "at 0x0 (2.0 GiB), 0x100000000 (3.0 GiB)".
    if not block.pieces:
        return ""
    if [piece.size for piece in block.pieces] == [block.size]:
        return f" at {block.pieces[0].gpa:#x}"
    places = [f"{piece.gpa:#x} ({format_size(piece.size)})" for piece in block.pieces]
    more = f" and {len(places) - _SHOWN_PIECES} more" if len(places) > _SHOWN_PIECES else ""
    return f" at {', '.join(places[:_SHOWN_PIECES])}{more}"
