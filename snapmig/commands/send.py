"""``snapmig send``."""

from __future__ import annotations

import argparse

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
from snapmig.commands.output import percent, rate, say, show
from snapmig.commands.peer import add_peer
from snapmig.commands.progress import show_progress
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.options.table import GENERAL, KEYS, OPTIONS, OUTPUT
from snapmig.operations.send import PATIENCE_S, SendResult, send
from snapmig.units import format_count, format_size

__all__ = ("add_parser",)

_EPILOG = """\
examples, each with a QEMU that waits there:
  snapmig send guest.snap unix:/run/guest.sock
  snapmig send --postcopy guest.snap unix:/run/guest.sock
  snapmig send --wire zstd --tls /etc/pki/qemu guest.snap tcp:192.0.2.7:4444
"""
_OF_RESTORES = (
    "wire",
    "postcopy",
    "working_set",
    "bwlimit",
    "follow_remote_parents",
    "accelerator",
    "depth",
)
_WIRE_HELP = "as the parameter multifd-compression there: none, zstd or zlib"


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "send",
        help="migrate a snapshot into a waiting QEMU, here or elsewhere",
        usage="snapmig send [options] SNAPSHOT ADDRESS",
        description="Migrate a snapshot's guest into a QEMU that waits on this host or another.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "snapshot", metavar="SNAPSHOT", help="a file or s3://BUCKET/KEY made by save"
    )
    parser.add_argument(
        "destination", metavar="ADDRESS", help="unix:PATH or tcp:ADDRESS:PORT of its -incoming"
    )
    groups = add_groups(parser)
    first = groups[GENERAL]
    add_peer(
        first,
        insecure="send to other hosts without TLS",
        timeout=f"seconds until it listens, and then until it loads ({PATIENCE_S:g})",
    )
    first.add_argument("--recover", action="store_true", help="with --postcopy: send the rest")
    first.add_argument("--uuid", metavar="UUID", help="of the waiting guest (none)")
    changes = {
        "bwlimit": {"help": "send at most RATE bytes per second, like 200M"},
        "wire": {"help": _WIRE_HELP},
    }
    for name in _OF_RESTORES:
        add_option(groups[OPTIONS[name].group], name, **changes.get(name, {}))
    add_keys(groups[KEYS])
    add_progress(groups[OUTPUT])
    add_common(groups[OUTPUT])
    parser.set_defaults(run=_run, channels=None)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "sending") as progress:
        result = call(send, options, keys=keys, progress=progress)
    show(options, "send", result, _print)
    return 0


def _print(result: SendResult) -> None:
    data_size = min(result.data_pages * PAGE_SIZE, result.ram_size)
    say(f"sent      {rate(result.ram_size, result.seconds)}, {format_count(result.jobs, 'job')}")
    say(f"not zero  {format_size(data_size)} ({percent(data_size, result.ram_size)})")
    say(f"on wire   {format_size(result.sent_size)}, {result.wire}")
    say(f"via       {result.via}")
    if result.packets_asked_for is not None:
        say(f"asked for {format_count(result.packets_asked_for, 'packet')}")
    say(f"to        {result.destination}")
