"""Ways of which ``make test`` goes some, and ``make test-more`` the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sweep(ways: Iterable[Any], essential: Callable[[Any], bool]) -> list[Any]:
    """Return parameters of a test; those that are not essential have the mark ``sweep``."""
    found = []
    for way in ways:
        values = way if isinstance(way, tuple) else (way,)
        marks = () if essential(way) else (pytest.mark.sweep,)
        found.append(pytest.param(*values, marks=marks))
    return found
