"""The program: one parser, and one place that makes errors and signals sentences and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType

from snapmig.commands.arguments import Parser
from snapmig.commands.output import error_line, fail, with_way
from snapmig.commands.style import STYLE
from snapmig.errors import SnapmigError
from snapmig.operations.failures import describe
from snapmig.version import __version__

__all__ = ("ALONE", "Interrupted", "build_parser", "load", "main")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

VERBS = (
    "save",
    "receive",
    "restore",
    "mount",
    "umount",
    "thaw",
    "send",
    "run",
    "info",
    "verify",
    "chain",
    "diff",
    "map",
    "merge",
    "rebase",
    "repack",
    "key",
    "batch",
    "backup",
    "daemon",
    "commit",
    "accelerators",
    "completion",
)
"""Modules beside this one, in the order of the help."""

ALONE = ("--version", "info", "chain", "accelerators", "completion")
"""First words after which no worker starts."""

WITH_COMMAND = ("run",)
"""Verbs with another program's command after ``--``."""

_DESCRIPTION = "Save the memory of virtual machines to files and restore it, in parallel."

_EPILOG = """\
exit codes (any other is a failure):
  0  done                          5  a worker process died
  1  failure                       6  done with warnings
  2  usage                         7  lock not acquired (backup)
  3  corrupt snapshot          128+N  interrupted by signal N
  4  unsupported feature or format version

examples:
  snapmig save /dev/shm/guest.ram guest.snap
  snapmig info guest.snap
  snapmig verify guest.snap
  snapmig restore guest.snap guest.ram

options of every verb:
  --json                a line of JSON in place of lines for people
  -q, --quiet           errors and warnings only, and no bar
  -v, --verbose         also what took how long; of backup results everywhere
  --color WHEN          auto (on a terminal without NO_COLOR), always or never
  --debug               a traceback after an error

"snapmig VERB --help" has the others of each verb.
"""


_SHORT = """\
usage: snapmig VERB [options] ...

  snapmig save guest.ram guest.snap        save a guest's memory from a file
  snapmig save qmp:/run/web.qmp web.snap   or that of a guest that runs
  snapmig info guest.snap                  show what is in a snapshot
  snapmig restore guest.snap guest.ram     bring it back
  snapmig mount guest.snap /mnt/guest      or use it without a restore
  snapmig backup init backup.toml          back up guests by rule

"snapmig --help" lists all verbs, "snapmig VERB --help" the options of one.
"""


def load(verb: str | None) -> None:
    """Import what a verb needs; the other verbs' modules take longer than a short verb's work."""
    for name in _verbs(verb):
        import_module(f"snapmig.commands.{name}")


def _verbs(verb: str | None) -> Sequence[str]:
    return (verb,) if verb in VERBS else () if verb == "--version" else VERBS


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """
    Return the parser of all verbs, or of a verb known already.

    :param verb: the first word; with ``--version`` no verb is needed
    """
    parser = Parser(
        prog="snapmig",
        usage="snapmig VERB [options] ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"snapmig {__version__}")
    verbs = parser.add_subparsers(
        title="verbs", dest="verb", metavar="VERB", required=True, prog="snapmig"
    )
    for name in _verbs(verb):
        import_module(f"snapmig.commands.{name}").add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None, *, way: str | None = None) -> int:
    """
    Run the program and return its exit code.

    :param argv: the arguments, default those of the process
    :param way: see :func:`with_way`; default: ``-f``, or nothing beside ``--json``
    """
    _settle_streams()
    STYLE.quiet, STYLE.verbose, STYLE.color = False, False, "auto"
    try:
        options = _parse(sys.argv[1:] if argv is None else list(argv))
    except SystemExit as stop:  # help, or an error of usage, was printed
        return _flushed(int(stop.code or 0))
    except (ImportError, MemoryError) as error:
        code, message = describe(error)
        print(error_line(f"can't start: {message}"), file=sys.stderr)
        return code
    STYLE.quiet, STYLE.verbose, STYLE.color = options.quiet, options.verbose, options.color
    try:
        with _interruptible():
            code = int(options.run(options))
        sys.stdout.flush()
        return code
    except Interrupted as interruption:
        return fail(
            options,
            128 + interruption.signal,
            "; ".join(
                [f"interrupted by {interruption.name}", *getattr(interruption, "__notes__", ())]
            ),
        )
    except BrokenPipeError:
        # The reader of our output is gone: keep the interpreter's flush at exit from failing, too.
        _drop_output()
        return 128 + signal.SIGPIPE
    except SnapmigError as error:
        if way is None:
            way = "" if options.json else "-f"
        return fail(options, *describe(with_way(error, way)))
    except (OSError, MemoryError, ImportError) as error:
        _flushed(0)
        return fail(options, *describe(error))
    except Exception as error:  # noqa: BLE001 - a bug: say so, with all there is to report
        import traceback  # noqa: PLC0415 - with a bug only

        traceback.print_exc()
        return fail(options, *describe(error))


def _parse(words: list[str]) -> argparse.Namespace:
    if not words:
        print(_SHORT, end="", file=sys.stderr)
        raise SystemExit(2)
    parser = build_parser(words[0])
    words, command = _split(words)
    if words.count("--") > 1:  # argparse takes each for the mark, and not the later as names
        parser.error("-- can be given once; a file of that name is ./--")
    return parser.parse_args(words, argparse.Namespace(**command))


def _split(words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    # Another program's words, for argparse would look for options of ours among them.
    if words[:1] not in ([each] for each in WITH_COMMAND):
        return words, {}
    at = words.index("--") if "--" in words else len(words)
    return words[:at], {"command": words[at + 1 :]}


def _settle_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with the descriptor closed
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for good
        getattr(sys, name).reconfigure(errors="backslashreplace")  # for names outside UTF-8


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError:
        _drop_output()
    return code


def _drop_output() -> None:
    # Keep the interpreter's flush at exit from failing, too.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Interrupted(BaseException):
    """A signal asked the program to end. No ``except Exception`` catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.signal).name


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` on the first signal; later ones can't disturb the clean-up."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    interrupted = False

    def interrupt(number: int, _frame: FrameType | None) -> None:
        # Blocked, not ignored: pending signals are dropped at the end of the process. Python
        # resets handlers on its way out, and complains of signals without one.
        nonlocal interrupted
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if not interrupted:
            interrupted = True
            raise Interrupted(number)

    for number in _SIGNALS:
        if before[number] != signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        if not interrupted:
            for number, handler in before.items():
                signal.signal(number, handler)
