"""``snapmig receive``."""

from __future__ import annotations

import argparse

from snapmig.commands.arguments import (
    Verbs,
    add_common,
    add_groups,
    add_keys,
    add_option,
    add_progress,
)
from snapmig.commands.keys import chosen_to_save
from snapmig.commands.output import print_notice
from snapmig.commands.peer import add_peer
from snapmig.commands.progress import show_progress
from snapmig.commands.saved import print_saved
from snapmig.errors import UsageError
from snapmig.operations.options.table import GENERAL, KEYS, OPTIONS, OUTPUT
from snapmig.operations.receive import FIRST_S, receive

__all__ = ("add_parser",)

_EPILOG = """\
examples, each before a migration at the guest's monitor:
  snapmig receive --listen unix:/run/guest.sock guest.snap
  snapmig receive --listen tcp:192.0.2.7:4444 --tls /etc/pki/qemu guest.snap
"""
_OF_SAVES = (
    "parent", "compression", "level", "jobs", "force", "attach", "arch", "follow_remote_parents",
    "encrypt", "sign", "mixed_chain", "bwlimit", "packet_size",
    "page_digests", "deltas", "accelerator", "depth", "window",
)  # fmt: skip
_OWN = ("channels", "tls", "insecure", "timeout")


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "receive",
        help="save a guest that its QEMU migrates here",
        usage="snapmig receive --listen ADDRESS [options] SNAPSHOT",
        description="Save a guest that QEMU migrates here, from this host or another.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="the file to make")
    groups = add_groups(parser)
    first = groups[GENERAL]
    first.add_argument(
        "--listen",
        required=True,
        metavar="ADDRESS",
        help="unix:PATH or tcp:ADDRESS:PORT, where QEMU migrates to",
    )
    add_peer(
        first,
        insecure="let other hosts connect without TLS",
        timeout=f"seconds to wait for the migration ({FIRST_S:g})",
    )
    for name in _OF_SAVES:
        add_option(groups[OPTIONS[name].group], name)
    add_keys(groups[KEYS], seals=True)
    add_progress(groups[OUTPUT])
    add_common(groups[OUTPUT])
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in (*_OWN, *_OF_SAVES)}
    attached = dict(options.attach)
    if len(attached) < len(options.attach):
        raise UsageError("--attach gives the same NAME twice")
    keys = chosen_to_save(options)
    with show_progress(options, "receiving") as progress:
        result = receive(
            options.listen,
            options.snapshot,
            **{**given, "attach": attached},
            keys=keys,
            progress=progress,
            notice=print_notice,
        )
    print_saved(options, "receive", result)
    return 0
