"""``snapmig info``."""

from __future__ import annotations

import argparse
from functools import partial

from snapmig.commands.arguments import Verbs, add_common, add_keys
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import fail, percent, say, say_bold, show
from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.operations.failures import describe
from snapmig.operations.info import SnapshotInfo, info
from snapmig.operations.qcow2 import Qcow2Info, is_qcow2, qcow2_info
from snapmig.printable import printable
from snapmig.units import format_size

__all__ = ("add_parser",)

_SHOWN_PIECES = 8
_NAME = "snapshot"

_EPILOG = """\
examples:
  snapmig info guest.snap
  snapmig info *.snap
  snapmig info --json guest.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "info",
        help="show the facts of a snapshot",
        usage="snapmig info [options] SNAPSHOT...",
        description="Show the facts of a snapshot without reading its packets, or list the guests\n"
        "that savevm left in a qcow2 disk image. Several snapshots are a line each.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "snapshots", metavar="SNAPSHOT", nargs="+", help="a snapshot made by save, or a qcow2 file"
    )
    add_keys(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options, asks=False)
    if len(options.snapshots) == 1:
        (path,) = options.snapshots
        if is_qcow2(path):
            show(options, "qcow2", qcow2_info(path), _print_qcow2)
        else:
            show(options, "info", info(path, keys=keys), _print)
        return 0
    code, width = 0, max(len(_NAME), *map(len, map(printable, options.snapshots)))
    if not options.json:
        say_bold(_line(_NAME, "created, UTC", "kind", "RAM", "not zero", "on disk", width))
    for path in options.snapshots:
        try:
            show(options, "info", info(path, keys=keys), partial(_print_line, width=width))
        except (OSError, SnapmigError) as error:  # the others are shown all the same
            failed = fail(options, *describe(error))
            code = code or failed
    return code


def _print_line(result: SnapshotInfo, *, width: int) -> None:
    kind = "full" if result.parent_id is None else "incremental"
    sizes = (
        format_size(result.ram_size),
        format_size(min(result.data_pages * PAGE_SIZE, result.ram_size)),
        format_size(result.disk_size),
    )
    sealing = "" if result.sealing == "none" else f"  {result.sealing}"
    created = result.created[:16].replace("T", " ")
    say(_line(printable(result.snapshot), created, kind, *sizes, width) + sealing)


def _line(
    name: str, created: str, kind: str, ram: str, in_use: str, on_disk: str, width: int
) -> str:
    return f"{name:<{width}}  {created:<16}  {kind:<11}  {ram:>10}  {in_use:>10}  {on_disk:>10}"


def _print(result: SnapshotInfo) -> None:
    data_size = min(result.data_pages * PAGE_SIZE, result.ram_size)
    packets = ", ".join(f"{count} {name}" for name, count in result.packets.items() if count)
    say(f"snapshot     {result.snapshot}")
    say(f"id           {result.snapshot_id}")
    say(f"root         {result.root}")
    way = "" if result.via is None else f" via {result.via}"
    say(
        f"created      {result.created}, from {result.source}{way}"
        if result.source
        else f"created      {result.created}"
    )
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
    if result.parent_sealing is not None:
        say(f"mixed chain  the parent's sealing is {result.parent_sealing}")
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
    if result.sealing != "none":
        shown = ", ".join(result.sealed_for)
        proved = "proved by a key" if result.proved else "no key was given to prove it"
        say(f"sealed       {result.sealing}, {proved}; opens with: {shown}")
    for entry in result.attachments or ():
        say(f"attachment   {entry.name}: {format_size(entry.size)}")


def _print_qcow2(result: Qcow2Info) -> None:
    say(f"disk image   {result.image}")
    say(f"format       qcow2 version {result.version}, {format_size(result.cluster_size)} clusters")
    say(f"disk         {format_size(result.disk_size)}")
    if result.in_use:
        say("in use       a QEMU has it open for writing")
    for each in result.snapshots:
        memory = f"{format_size(each.vm_state_size)} of memory and device state"
        say(
            f"snapshot     {each.name} (ID {each.id}): {each.created}, "
            f"{memory if each.vm_state_size else 'the disk alone'}"
        )


def _places(block: RamBlock) -> str:
    # "at 0x0", or each piece: "at 0x0 (2.0 GiB), 0x100000000 (3.0 GiB)".
    if not block.pieces:
        return ""
    if [piece.size for piece in block.pieces] == [block.size]:
        return f" at {block.pieces[0].gpa:#x}"
    places = [f"{piece.gpa:#x} ({format_size(piece.size)})" for piece in block.pieces]
    more = f" and {len(places) - _SHOWN_PIECES} more" if len(places) > _SHOWN_PIECES else ""
    return f" at {', '.join(places[:_SHOWN_PIECES])}{more}"
