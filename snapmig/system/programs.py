"""Other programs as filters: a decompressor that a foreign image needs."""

from __future__ import annotations

import subprocess

from snapmig.errors import SnapmigError

__all__ = ("FilterError", "run_filter")


class FilterError(SnapmigError):
    """A program is missing or failed; the message has its own last words."""


def run_filter(arguments: list[str], source: int, destination: int) -> None:
    """
    Run a program from one descriptor to another.

    :raises FilterError: it is not installed, or it failed
    """
    try:
        done = subprocess.run(
            arguments, stdin=source, stdout=destination, stderr=subprocess.PIPE, check=False
        )
    except FileNotFoundError as error:
        raise FilterError(f"{arguments[0]} is needed for this and not installed") from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        reason = words[0] if words else f"exit status {done.returncode}"
        raise FilterError(f"{arguments[0]} failed: {reason}")
