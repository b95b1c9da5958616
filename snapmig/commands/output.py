"""Results on stdout: lines for people, or one line of JSON."""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

from snapmig.errors import DestinationExistsError
from snapmig.printable import printable
from snapmig.units import format_duration, format_size

__all__ = (
    "fail",
    "json_line",
    "percent",
    "print_json",
    "print_notice",
    "print_warnings",
    "rate",
    "say",
    "show",
    "with_way",
)

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def say(line: str, stream: TextIO | None = None) -> None:
    """
    Print a line for people, with control characters made visible.

    :param stream: standard output by default
    """
    print(printable(line), file=stream)


def json_line(fields: Mapping[str, Any]) -> str:
    r"""
    Return a line of JSON in ASCII, valid for every reader.

    A byte of a path outside UTF-8, half a character to Python, becomes ``\xNN`` in its string.
    """
    text = _SURROGATE.sub(
        lambda match: json.dumps(printable(match[0]))[1:-1], json.dumps(fields, ensure_ascii=False)
    )
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)


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
        say(f"snapmig: warning: {warning}", sys.stderr)


def print_notice(sentence: str) -> None:
    """Print a notice on stderr while an operation goes on."""
    say(f"snapmig: {sentence}", sys.stderr)


def percent(part: float, whole: float) -> str:
    """Return a share as text, at most 100 %: a last page may reach past the end of its block."""
    return f"{100 * min(part / whole, 1):.1f} %" if whole else "0.0 %"


def rate(size: int, seconds: float) -> str:
    """Return the amount done, the time it took, and the speed."""
    speed = f" ({format_size(size / seconds)}/s)" if seconds else ""
    return f"{format_size(size)} in {format_duration(seconds)}{speed}"


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
        traceback.print_exc()
    if options.json:
        line = {"message_type": "error", "exit_code": code, "message": message}
        print(json_line(line), file=sys.stderr)
    else:
        say(f"snapmig: {message}", sys.stderr)
    return code
