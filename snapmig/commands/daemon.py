"""``snapmig daemon``: the other end of protocols of other hypervisors."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys, chosen_to_save
from snapmig.commands.output import print_notice, say, show
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.errors import UsageError
from snapmig.operations.options.table import OPTIONS
from snapmig.operations.receive_cloud_hypervisor import WAIT_S, receive_cloud_hypervisor
from snapmig.operations.restore_cloud_hypervisor import CONNECT_S, restore_cloud_hypervisor
from snapmig.operations.runs.random_access import CACHE
from snapmig.operations.serve_firecracker import serve_firecracker
from snapmig.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from snapmig.operations.restore_cloud_hypervisor import HandOverResult
    from snapmig.operations.serve_firecracker import ServeResult

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig daemon firecracker --listen /run/fc.sock guest.snap
  snapmig daemon cloud-hypervisor --listen /run/save.sock guest.snap
  snapmig daemon cloud-hypervisor --connect /run/in.sock --postcopy guest.snap
"""
_FIRECRACKER_EPILOG = """\
examples:
  snapmig daemon firecracker --listen /run/fc.sock guest.snap
  snapmig daemon firecracker --listen /run/fc.sock --fill --once guest.snap

Ended by Ctrl-C or SIGTERM, it gives its guests the rest of their memory first.
"""
_CLOUD_EPILOG = """\
examples:
  snapmig daemon cloud-hypervisor --listen /run/save.sock guest.snap
  snapmig daemon cloud-hypervisor --connect /run/in.sock --postcopy guest.snap
"""
_SAVES = (
    "parent", "compression", "level", "layout", "force", "attach", "packet_size", "page_digests",
    "deltas", "accelerator", "depth", "window", "encrypt", "sign", "mixed_chain", "recipient",
)  # fmt: skip
_RESTORES = {"postcopy": False, "paused": False, "cache": CACHE}


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser and those of its own verbs."""
    parser = verbs.add_parser(
        "daemon",
        help="serve guests of Firecracker and Cloud Hypervisor",
        usage="snapmig daemon VERB [options] ...",
        description="Serve guests of other hypervisors from a snapshot, or save them to one.",
        epilog=_EPILOG,
    )
    own = parser.add_subparsers(
        title="verbs", dest="daemon_verb", metavar="VERB", required=True, prog="snapmig daemon"
    )
    _add_firecracker(own)
    _add_cloud_hypervisor(own)


def _add_firecracker(own: Verbs) -> None:
    parser = own.add_parser(
        "firecracker",
        help="answer page faults of Firecracker's microVMs",
        usage="snapmig daemon firecracker --listen SOCKET [options] SNAPSHOT",
        description="Answer page faults of Firecracker's microVMs from a snapshot.",
        epilog=_FIRECRACKER_EPILOG,
    )
    parser.add_argument(
        "snapshot", metavar="SNAPSHOT", help="a file or s3://BUCKET/KEY made by save"
    )
    parser.add_argument(
        "--listen",
        required=True,
        metavar="SOCKET",
        help="backend_path of Firecracker's mem_backend",
    )
    parser.add_argument("--user", metavar="USER", help="that Firecracker runs as (your own)")
    add_option(parser, "working_set", help="packets to fill first; made if it is not there")
    parser.add_argument(
        "--fill", action="store_true", help="fill the rest meanwhile, then let guests go on alone"
    )
    parser.add_argument("--once", action="store_true", help="end with the first guest")
    add_option(parser, "jobs", help="threads that answer faults of a guest")
    parser.add_argument(
        "--cache", default=CACHE, metavar="SIZE", help=f"decoded packets to keep ({CACHE})"
    )
    add_option(parser, "follow_remote_parents")
    add_keys(parser)
    add_common(parser)
    parser.set_defaults(run=_run_firecracker)


def _run_firecracker(options: argparse.Namespace) -> int:
    result = call(serve_firecracker, options, keys=chosen_keys(options), notice=print_notice)
    show(options, "daemon", result, _print_served)
    return 0


def _print_served(result: ServeResult) -> None:
    how = "has all of its memory" if result.complete else "has ended"
    say(f"process   {result.pid} {how}")
    say(f"faults    {result.faults}, in {format_count(result.packets_asked_for, 'packet')}")
    say(f"decoded   {format_count(result.packets_decoded, 'packet')}")
    say(f"given up  {format_size(result.removed_size)}")


def _add_cloud_hypervisor(own: Verbs) -> None:
    parser = own.add_parser(
        "cloud-hypervisor",
        help="save guests of Cloud Hypervisor, or hand them over to it",
        usage="snapmig daemon cloud-hypervisor --listen|--connect SOCKET [options] SNAPSHOT",
        description="Save a guest that Cloud Hypervisor sends here, or hand one over to it.",
        epilog=_CLOUD_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the file to make, or to read")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--listen", metavar="SOCKET", help="save what send-migration sends here")
    way.add_argument("--connect", metavar="SOCKET", help="restore, where receive-migration waits")
    parser.add_argument("--user", metavar="USER", help="that Cloud Hypervisor runs as (your own)")
    waits = f"seconds to wait for it ({WAIT_S:g}; to restore {CONNECT_S:g})"
    parser.add_argument("--timeout", type=float, metavar="S", help=waits)
    add_option(parser, "jobs")
    add_option(parser, "follow_remote_parents")
    restores = parser.add_argument_group("with --connect")
    words = "let it run at once; needs memory_mode=postcopy there"
    restores.add_argument("--postcopy", action="store_true", help=words)
    restores.add_argument("--paused", action="store_true", help="leave it paused")
    restores.add_argument(
        "--cache", default=CACHE, metavar="SIZE", help=f"decoded packets for --postcopy ({CACHE})"
    )
    saves = parser.add_argument_group("with --listen")
    for name in _SAVES[:-1]:
        add_option(saves, name)
    add_keys(parser, seals=True)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run_cloud_hypervisor)


def _run_cloud_hypervisor(options: argparse.Namespace) -> int:
    useless, way = _RESTORES, "--connect"
    if options.connect:
        useless, way = (
            {"user": None, **{name: OPTIONS[name].default for name in _SAVES}},
            "--listen",
        )
    for name, default in useless.items():
        if getattr(options, name) not in (default, []):
            raise UsageError(f"--{name.replace('_', '-')} is for {way} only")
    if options.connect:
        return _hand_over(options)
    attached = dict(options.attach)
    if len(attached) < len(options.attach):
        raise UsageError("--attach gives the same NAME twice")
    keys = chosen_to_save(options)
    with show_progress(options, "saving") as progress:
        result = call(
            receive_cloud_hypervisor,
            options,
            keys=keys,
            attach=attached,
            progress=progress,
            notice=print_notice,
        )
    print_saved(options, "save", result)
    return 0


def _hand_over(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    with show_progress(options, "restoring") as progress:
        result = call(
            restore_cloud_hypervisor, options, keys=keys, progress=progress, notice=print_notice
        )
    show(options, "daemon", result, _print_handed_over)
    return 0


def _print_handed_over(result: HandOverResult) -> None:
    how = "runs" if result.running else "is paused"
    say(f"guest     of {format_size(result.ram_size)} {how}")
    say(f"after     {format_duration(result.seconds_to_run)}")
    if result.faults is not None:
        say(f"faults    {result.faults}")
        say(f"decoded   {format_count(result.packets_decoded or 0, 'packet')}")
    say(f"took      {format_duration(result.seconds)}")
