"""Results on stdout: lines for people, or one line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from snapmig.units import format_duration, format_size

__all__ = ("fail", "percent", "print_json", "print_notice", "print_warnings", "rate")


def print_json(command: str, result: Any) -> None:
    """Print a result's fields as one line of JSON."""
    print(json.dumps({"message_type": command, **asdict(result)}))


def print_warnings(warnings: Iterable[str]) -> None:
    """Print what the user should know, a line each, on stderr."""
    for warning in warnings:
        print(f"snapmig: warning: {warning}", file=sys.stderr)


def print_notice(sentence: str) -> None:
    """Print what the user should read while something goes on, on stderr."""
    print(f"snapmig: {sentence}", file=sys.stderr, flush=True)


def percent(part: float, whole: float) -> str:
    """Return a share in words, at most 100 %: a last page may reach past the end of its block."""
    return f"{100 * min(part / whole, 1):.1f} %" if whole else "0.0 %"


def rate(size: int, seconds: float) -> str:
    """Return what was done in which time, and how fast that is."""
    speed = f" ({format_size(size / seconds)}/s)" if seconds else ""
    return f"{format_size(size)} in {format_duration(seconds)}{speed}"


def fail(options: argparse.Namespace, code: int, message: str) -> int:
    """Print an error and return its exit code."""
    if options.debug and sys.exception() is not None:
        traceback.print_exc()
    if options.json:
        line = {"message_type": "error", "exit_code": code, "message": message}
        print(json.dumps(line), file=sys.stderr)
    else:
        print(f"snapmig: {message}", file=sys.stderr)
    return code
