"""``snapmig run``."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from snapmig.commands.arguments import Verbs, add_common, add_keys, add_option, add_progress, call
from snapmig.commands.keys import chosen_keys
from snapmig.commands.output import error_line, print_json, print_notice, print_warnings, say
from snapmig.commands.progress import show_progress
from snapmig.operations.run import RunResult, run
from snapmig.printable import shell_words

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig run guest.snap
  snapmig run guest.snap -- -display none
  snapmig run --mount /mnt/guest guest.snap
  snapmig run guest.snap -- qemu-system-x86_64 -machine q35 -m 2G disk.qcow2
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "run",
        help="start QEMU with the guest of a snapshot",
        usage="snapmig run [options] SNAPSHOT [-- QEMU ARGUMENTS]",
        description="Start QEMU with the guest of a snapshot, and end with it. The recorded\n"
        "command is shown, and run once you agree: it comes from the snapshot. After\n"
        "-- stands a command to be run instead, or, from an option on, more words for\n"
        "the recorded one.",
        epilog=_EPILOG,
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a file, or s3://BUCKET/KEY")
    parser.add_argument("-y", "--yes", action="store_true", help="run the recorded command unasked")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--postcopy",
        action="store_true",
        default=None,
        help="run the guest at once, send its memory meanwhile\n(the default where userfaultfd is "
        "allowed)",
    )
    way.add_argument(
        "--no-postcopy", dest="postcopy", action="store_false", help="restore it whole before"
    )
    way.add_argument(
        "--mount",
        metavar="DIR",
        help="map its memory from the snapshot mounted at DIR, and\nmount it there unless it is",
    )
    for name in ("working_set", "jobs", "follow_remote_parents"):
        add_option(parser, name)
    add_keys(parser)
    add_progress(parser)
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    def confirm(command: tuple[str, ...]) -> bool:
        say(f"command from {options.snapshot}:", sys.stderr)
        say(f"  {shell_words(command)}", sys.stderr)
        return options.yes or _agrees()

    def running(result: RunResult) -> None:
        bar.close()  # the terminal is the guest's now
        print_warnings(result.warnings)
        seconds = result.seconds_to_run
        print_notice(f"the guest runs, after {seconds:.2f} s via {result.via}")

    with ExitStack() as bar:
        result = call(
            run,
            options,
            keys=chosen_keys(options),
            confirm=confirm,
            running=running,
            progress=bar.enter_context(show_progress(options, "restoring")),
            notice=print_notice,
        )
    _print(options, result)
    return result.exit_code


def _agrees() -> bool:
    if not sys.stdin.isatty():
        say("snapmig: --yes runs it unasked", sys.stderr)
        return False
    print("Run it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print(options: argparse.Namespace, result: RunResult) -> None:
    if options.json:
        print_json("run", result)
    elif result.exit_status:
        message = f"QEMU ended with exit status {result.exit_status}"
        print(error_line(message), file=sys.stderr)
