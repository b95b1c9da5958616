"""``snapmig verify``."""

from __future__ import annotations

import argparse
import sys

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import error_line, fail, range_lines, rate, say, show, verdict
from snapmig.commands.progress import show_progress
from snapmig.errors import SnapmigError
from snapmig.operations.failures import describe
from snapmig.operations.options.parse import WINDOWS
from snapmig.operations.verify import VerifyResult, verify

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig verify guest.snap
  snapmig verify --quick --json *.snap
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "verify",
        help="check snapshots for damage",
        usage="snapmig verify [options] SNAPSHOT...",
        description="Check snapshots for damage: decode every page, and compare every checksum.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshots", metavar="SNAPSHOT", nargs="+", help="a snapshot made by save")
    add_option(parser, "jobs")
    parser.add_argument(
        "--quick", action="store_true", help="check tables, index and unused space only"
    )
    parser.add_argument(
        "--window", choices=WINDOWS, help="check that a decoder with this history is enough"
    )
    parser.add_argument(
        "--expect", metavar="ROOT", help="check that it has this root, printed by info and save"
    )
    add_option(parser, "accelerator")
    add_option(parser, "depth")
    add_option(parser, "follow_remote_parents")
    add_keys(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    keys = chosen_keys(options)
    code = 0
    for path in options.snapshots:
        with show_progress(options, "verifying") as progress:
            try:
                result = call(verify, options, keys=keys, snapshot=path, progress=progress)
            except (OSError, SnapmigError) as error:  # the others are checked all the same
                if isinstance(error, SnapmigError) and error.exit_code != 1:
                    raise
                failed = fail(options, *describe(error))
                code = code or failed
                continue
        code = code or result.exit_code
        show(options, "verify", result, _print)
    return code


def _print(result: VerifyResult) -> None:
    if result.ok:
        what = "tables and index of " if result.quick else ""
        what = "stored bytes only, for want of a key, of " if result.locked else what
        proved = ", proved by its key" if result.proved else ""
        if result.sealing == "signed" and not result.proved:
            proved = "; signed, which takes a key to prove"
        rest = f", {what}{rate(result.ram_size, result.seconds)}{proved}"
        verdict(result.snapshot, "ok", rest, good=True)
        return
    for problem in result.problems:
        print(error_line(problem), file=sys.stderr)
    damage = f", {result.damaged_packets} of {result.packets} packets" if result.packets else ""
    verdict(result.snapshot, "damaged", damage, good=False)
    for line in range_lines(result.damaged, result.damaged_ranges):
        say(line)
