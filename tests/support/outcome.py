"""The end of a command, as tests compare it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The result of a call of the program."""

    code: int
    out: str
    err: str
