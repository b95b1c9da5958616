"""The program: one parser, one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from snapmig.commands import info, restore, save, verify
from snapmig.commands.arguments import HelpFormatter
from snapmig.commands.signals import Interrupted, interruptible
from snapmig.errors import SnapmigError
from snapmig.version import __version__

__all__ = ("build_parser", "main")

_DESCRIPTION = "Save the memory of virtual machines to files and restore it, in parallel."

_EPILOG = """\
exit codes:
  0  done                          4  unsupported feature or format version
  1  failure                       5  a worker process died
  2  usage                     128+N  interrupted by signal N
  3  corrupt snapshot                 (treat any other code as a failure)

examples:
  snapmig save /dev/shm/guest.ram guest.snap
  snapmig info guest.snap
  snapmig verify guest.snap
  snapmig restore guest.snap guest.ram

"snapmig VERB --help" tells more about each verb.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="snapmig",
        usage="snapmig VERB [options] ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"snapmig {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for module in (save, restore, info, verify):
        module.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the program and return its exit code.

    :param argv: the arguments, default those of the process
    """
    options = build_parser().parse_args(argv)
    try:
        with interruptible():
            code: int = options.run(options)
            sys.stdout.flush()
            return code
    except Interrupted as interruption:
        return _fail(options, 128 + interruption.signal, f"interrupted by {interruption.name}")
    except BrokenPipeError:
        # Whoever read our output has left; say nothing, and keep the interpreter's own flush at
        # the exit from failing a second time.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SnapmigError as error:
        return _fail(options, error.exit_code, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _fail(options, 1, f"{where}{error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - a bug: say so, with all there is to report
        traceback.print_exc()
        return _fail(options, 1, f"this is a bug in snapmig: {error!r}")


def _fail(options: argparse.Namespace, code: int, message: str) -> int:
    if options.debug and sys.exception() is not None:
        traceback.print_exc()
    if options.json:
        line = {"message_type": "error", "exit_code": code, "message": message}
        print(json.dumps(line), file=sys.stderr)
    else:
        print(f"snapmig: {message}", file=sys.stderr)
    return code
