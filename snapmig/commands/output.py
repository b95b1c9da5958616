"""Results on stdout, as lines for people or one line of JSON; the rest on stderr."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from snapmig.commands.style import BOLD, GREEN, RED, STYLE, YELLOW, paint
from snapmig.errors import DestinationExistsError
from snapmig.printable import json_line, printable
from snapmig.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from snapmig.operations.runs.lost import LostRange

__all__ = (
    "error_line",
    "fail",
    "notice_line",
    "percent",
    "print_json",
    "print_notice",
    "print_warnings",
    "range_lines",
    "rate",
    "say",
    "say_bold",
    "show",
    "verdict",
    "warning_line",
    "with_way",
)

_RANGES_SHOWN = 100


def say(line: str, stream: TextIO | None = None) -> None:
    """
    Print a line for people, with control characters made visible.

    :param stream: standard output by default, where nothing appears with ``--quiet``
    """
    if stream is not None or not STYLE.quiet:
        print(printable(line), file=stream)


def say_bold(line: str) -> None:
    """Print a table's head for people on stdout."""
    if not STYLE.quiet:
        print(paint(printable(line), BOLD, sys.stdout))


def verdict(path: str, word: str, rest: str, *, good: bool) -> None:
    """Print a line about a file on stdout, with a word in green or red."""
    if not STYLE.quiet:
        painted = paint(word, GREEN if good else RED, sys.stdout)
        print(f"{printable(path)}: {painted}{rest}")


def error_line(message: str) -> str:
    """Return an error as a line for stderr."""
    return f"{paint('snapmig:', RED, sys.stderr)} {printable(message)}"


def notice_line(message: str) -> str:
    """Return a notice as a line for stderr."""
    return printable(f"snapmig: {message}")


def warning_line(message: str) -> str:
    """Return a warning as a line for stderr."""
    return f"snapmig: {paint('warning:', YELLOW, sys.stderr)} {printable(message)}"


def print_json(command: str, result: Any) -> None:
    """Print a result's fields as one line of JSON."""
    print(json_line({"message_type": command, **asdict(result)}))


def show(
    options: argparse.Namespace, command: str, result: Any, print_lines: Callable[[Any], None]
) -> None:
    """
    Print a result's warnings, and the result for a program or for people.

    :param print_lines: prints a result for people
    """
    print_warnings(getattr(result, "warnings", ()))
    if options.json:
        print_json(command, result)
    else:
        print_lines(result)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on stderr, a line each."""
    for warning in warnings:
        print(warning_line(warning), file=sys.stderr)


def print_notice(sentence: str) -> None:
    """Print a notice on stderr while an operation goes on, unless it is to be quiet."""
    if not STYLE.quiet:
        print(notice_line(sentence), file=sys.stderr)


def percent(part: float, whole: float) -> str:
    """Return a share as text, at most 100 %: a last page may reach past the end of its block."""
    return f"{100 * min(part / whole, 1):.1f} %" if whole else "0.0 %"


def rate(size: int, seconds: float) -> str:
    """Return the amount done, the time it took, and the speed."""
    speed = f" ({format_size(size / seconds)}/s)" if seconds else ""
    return f"{format_size(size)} in {format_duration(seconds)}{speed}"


def range_lines(ranges: Sequence[LostRange], count: int) -> list[str]:
    """
    Return a line for each range of guest RAM, up to a limit, and how many more there are.

    :param count: of all ranges
    """
    shown = ranges[:_RANGES_SHOWN]
    lines = [
        f"  {found.block} at {found.offset:#x}, {format_size(found.size)}"
        + (f", guest physical address {found.gpa:#x}" if found.gpa is not None else "")
        for found in shown
    ]
    more = f"  and {format_count(count - len(shown), 'more range')}"
    return [*lines, more] if count > len(shown) else lines


def with_way(error: Exception, way: str = "-f") -> Exception:
    """
    Return an error with the way to get past it, known to the commands only.

    :param way: the user's word for ``force``; empty if a program reads the error
    """
    if not way or not isinstance(error, DestinationExistsError):
        return error
    return DestinationExistsError(f"{error.message}, {way} overwrites it", path=error.path)


def fail(options: argparse.Namespace, code: int, message: str) -> int:
    """Print an error and return its exit code."""
    if options.debug and sys.exception() is not None:
        import traceback  # noqa: PLC0415 - with --debug only

        traceback.print_exc()
    if options.json:
        line = {"message_type": "error", "exit_code": code, "message": message}
        print(json_line(line), file=sys.stderr)
    else:
        print(error_line(message), file=sys.stderr)
    return code
