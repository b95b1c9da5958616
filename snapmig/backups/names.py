"""
Names in a guest's folder, for every kind of store.

The name of a snapshot tells when its save began, in UTC, and has no other meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

__all__ = ("LOCK_NAME", "SUFFIX", "is_leftover", "is_snapshot", "new_name")

SUFFIX = ".snap"
LOCK_NAME = ".lock"

_NAME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(?:_\d{1,6})?\.snap"
_SNAPSHOT = re.compile(_NAME, re.ASCII)
_LEFTOVER = re.compile(rf"\.{_NAME}\.(?:[0-9a-f]{{12}}\.partial|\d+\.mapped-ram)", re.ASCII)


def is_snapshot(name: str) -> bool:
    """Return whether a name has the form of a run's snapshot."""
    return _SNAPSHOT.fullmatch(name) is not None


def is_leftover(name: str) -> bool:
    """Return whether a name is that of a temporary file, possibly left by a killed run."""
    return _LEFTOVER.fullmatch(name) is not None


def new_name(now: datetime, is_taken: Callable[[str], bool]) -> str:
    """Return an unused name for a snapshot of a moment; a second one in a second is ``_2``."""
    start = f"{now.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}"
    names = (f"{start}{'' if number == 1 else f'_{number}'}{SUFFIX}" for number in count(1))
    return next(name for name in names if not is_taken(name))
