"""``snapmig backup``: its verbs and their arguments; backup_verbs runs them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from snapmig.commands.arguments import Verbs, add_common, add_option, add_progress, checked
from snapmig.errors import UsageError

__all__ = ("add_parser",)

_EPILOG = """\
exit codes, as of snapmig, and:
  6  done with warnings: something was skipped, or a hook failed
  7  lock of a guest not acquired within --lock-wait
The first error's code comes before a warning's; a guest's failure does not
stop the others.

examples:
  snapmig backup init backup.toml
  snapmig backup run backup.toml
  snapmig backup restore backup.toml web web.ram --before 2026-11-23

"snapmig backup VERB --help" has the options of each; see docs/backups.md.
"""

_RUN_EPILOG = """\
Without GUEST all guests are saved. Results are printed on a terminal or with
-v; warnings and errors always, on stderr.

examples:
  snapmig backup run backup.toml
  snapmig backup run --dry-run backup.toml web
  snapmig backup run --lock-wait 600 --json backup.toml
"""

_LIST_EPILOG = """\
examples:
  snapmig backup list backup.toml
  snapmig backup list --json backup.toml web
"""

_RESTORE_EPILOG = """\
TIME is like 2026-11-23, 2026-11-23T02:15 (local) or 2026-11-23T02:15:00Z, or
how long ago: 3d, 12h. Without --before and --snapshot the last one is restored.

examples:
  snapmig backup restore backup.toml web web.ram
  snapmig backup restore --before 2026-11-23T02:15 backup.toml web web.ram
  snapmig backup restore backup.toml web qmp:/run/web.qmp
"""

_CHECK_EPILOG = """\
With check_within in CONFIG, each run reads a part, and all parts within that
time. Chains and tables of all snapshots are checked each time.

examples:
  snapmig backup check backup.toml
  snapmig backup check --all --json backup.toml web
"""

_PRUNE_EPILOG = """\
Parents of a kept snapshot are kept. Without rules nothing is removed.

examples:
  snapmig backup prune --dry-run backup.toml
  snapmig backup prune backup.toml web
"""

_REPORT_EPILOG = """\
The page has all in itself and no secrets of guests' memory; open it in any
browser. Guests that need attention are warnings (exit code 6).

examples:
  snapmig backup report backup.toml -o backups.html
  snapmig backup report -f backup.toml -o .
"""

_INIT_EPILOG = """\
examples:
  snapmig backup init backup.toml
  snapmig backup init --force backup.toml
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser and those of its own verbs."""
    parser = verbs.add_parser(
        "backup",
        help="back up guests by rules, and remove old snapshots",
        usage="snapmig backup VERB [options] CONFIG ...",
        description="Save guests regularly, and keep snapshots by rules such as keep_daily.",
        epilog=_EPILOG,
    )
    own = parser.add_subparsers(
        title="verbs", dest="backup_verb", metavar="VERB", required=True, prog="snapmig backup"
    )
    _add_run(own)
    _add_list(own)
    _add_restore(own)
    _add_check(own)
    _add_prune(own)
    _add_report(own)
    _add_init(own)


def _verb(own: Verbs, name: str, usage: str, words: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = own.add_parser(
        name,
        help=words[0].lower() + words[1:],
        usage=f"snapmig backup {name} [options] {usage}",
        description=f"{words}.",
        epilog=epilog,
    )
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, see init")
    parser.set_defaults(run=_run_verb)
    return parser


def _run_verb(options: argparse.Namespace) -> int:
    # Only here: TOML and msgspec take 40 ms to import, and other verbs need neither.
    from snapmig.commands.backup_verbs import VERBS  # noqa: PLC0415

    verb: Callable[[argparse.Namespace], int] = VERBS[options.backup_verb]
    return verb(options)


def _add_run(own: Verbs) -> None:
    words = "Save guests, then remove snapshots by the rules"
    parser = _verb(own, "run", "CONFIG [GUEST...]", words, _RUN_EPILOG)
    _add_guests(parser)
    _add_dry_run(parser)
    parser.add_argument("--full", action="store_true", help="save in full, whatever the rule")
    parser.add_argument("--no-prune", action="store_true", help="remove nothing")
    _add_lock_wait(parser)
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        type=Path,
        help="write FILE.prom for Prometheus's textfiles",
    )
    add_option(parser, "monitor_timeout", default_text="as in CONFIG, else 30")
    add_option(parser, "jobs")
    add_progress(parser)
    add_common(parser)


def _add_list(own: Verbs) -> None:
    words = "List the snapshots"
    parser = _verb(own, "list", "CONFIG [GUEST...]", words, _LIST_EPILOG)
    _add_guests(parser)
    add_common(parser)


def _add_restore(own: Verbs) -> None:
    words = "Restore a guest as of a given time"
    parser = _verb(own, "restore", "CONFIG GUEST TARGET", words, _RESTORE_EPILOG)
    parser.add_argument("guest", metavar="GUEST", help="as in CONFIG")
    parser.add_argument("target", metavar="TARGET", help="the image to make, or qmp:SOCKET")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--before", metavar="TIME", help="the last snapshot before TIME (now)")
    which.add_argument("--snapshot", metavar="NAME", help="a snapshot by its name in list")
    add_option(parser, "format", help="of TARGET", default_text="as saved")
    how = parser.add_mutually_exclusive_group()
    add_option(how, "force", help="replace an existing TARGET")
    add_option(how, "in_place", help="fill an existing TARGET")
    add_option(how, "for_qemu", help="see snapmig restore --help")
    add_option(parser, "keep_going")
    add_option(parser, "monitor_timeout")
    add_option(parser, "jobs")
    add_progress(parser)
    add_common(parser)


def _add_check(own: Verbs) -> None:
    words = "Check that snapshots can be restored"
    parser = _verb(own, "check", "CONFIG [GUEST...]", words, _CHECK_EPILOG)
    _add_guests(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--all", dest="everything", action="store_true", help="read all of it now")
    what.add_argument(
        "--days",
        type=checked(_parse_days),
        default=1,
        metavar="N",
        help="catch up on N days of parts (1)",
    )
    add_option(parser, "jobs")
    add_progress(parser)
    add_common(parser)


def _add_prune(own: Verbs) -> None:
    words = "Remove snapshots by the rules"
    parser = _verb(own, "prune", "CONFIG [GUEST...]", words, _PRUNE_EPILOG)
    _add_guests(parser)
    _add_dry_run(parser)
    _add_lock_wait(parser)
    add_progress(parser)
    add_common(parser)


def _add_report(own: Verbs) -> None:
    words = "Write a page about guests and their snapshots"
    parser = _verb(own, "report", "CONFIG [GUEST...] -o FILE.html", words, _REPORT_EPILOG)
    _add_guests(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True,
        help="FILE.html, or a directory for index.html",
    )  # fmt: skip
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing page")
    parser.add_argument("--no-maps", action="store_true", help="without pictures of memory")
    add_progress(parser)
    add_common(parser)


def _add_init(own: Verbs) -> None:
    words = "Write a configuration with comments"
    parser = _verb(own, "init", "CONFIG", words, _INIT_EPILOG)
    parser.add_argument("-f", "--force", action="store_true", help="replace an existing CONFIG")
    add_common(parser)


def _add_guests(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("guests", metavar="GUEST", nargs="*", default=[], help="only these (all)")


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def _add_lock_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lock-wait",
        type=checked(_parse_seconds),
        metavar="SECONDS",
        help="time to wait for each lock (as in CONFIG, else 0)",
    )


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e7:
        raise UsageError(f"{text!r} is not a number of seconds")
    return seconds


def _parse_days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 36500:
        raise UsageError(f"{text!r} is not a number of days")
    return int(text)
