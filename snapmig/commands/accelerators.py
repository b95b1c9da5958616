"""``snapmig accelerators``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import Verbs, add_common
from snapmig.commands.output import percent, say, show
from snapmig.operations.accelerators import AcceleratorInfo, accelerators
from snapmig.units import format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig accelerators
  snapmig accelerators --measure
  snapmig save --accelerator qpl:software --window 4k guest.ram guest.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "accelerators",
        help="list the zlib engines of this host",
        usage="snapmig accelerators [options]",
        description="List the engines for --accelerator, and why some can't be used.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure each on a sample like guest RAM, in seconds"
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    for found in accelerators(measure=options.measure):
        show(options, "accelerator", found, _print)
    return 0


def _print(found: AcceleratorInfo) -> None:
    version = f", version {found.version}" if found.version else ""
    say(f"{found.name:<14}{found.title}{version}")
    if found.problem is None:
        say(f"{'':14}ready{f': {found.note}' if found.note else ''}")
    else:
        say(f"{'':14}not usable: {found.problem}")
    if found.remedy is not None:
        say(f"{'':14}{found.remedy}")
    for device in found.devices:
        say(f"{'':14}device {device}")
    say(f"{'':14}{_abilities(found)}")
    if found.speed is not None:
        speed = found.speed
        say(
            f"{'':14}level {speed.level}: compresses {format_size(speed.compress)}/s "
            f"to {percent(speed.ratio, 1)}, decompresses {format_size(speed.decompress)}/s"
        )
    if found.speed_problem is not None:
        say(f"{'':14}not measured: {found.speed_problem}")


def _abilities(found: AcceleratorInfo) -> str:
    first, last = found.levels[0], found.levels[-1]
    if found.levels == tuple(range(first, last + 1)):
        levels = f"levels {first} to {last}" if first < last else f"level {first}"
    else:
        levels = f"levels {', '.join(map(str, found.levels))}"
    made, read = found.compress_window_bits, found.decompress_window_bits
    depth = f", depth {found.max_depth}" if found.max_depth > 1 else ""
    return f"{levels}, window {_window(made)} to compress, {_window(read)} to decompress{depth}"


def _window(bits: int) -> str:
    return f"{1 << bits >> 10} KiB"
