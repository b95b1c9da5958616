"""Variants of tests: some run in ``make test``, all others in ``make test-more``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sweep(ways: Iterable[Any], essential: Callable[[Any], bool]) -> list[Any]:
    """Return parameters of a test; inessential ones have the mark ``sweep``."""
    found = []
    for way in ways:
        values = way if isinstance(way, tuple) else (way,)
        marks = () if essential(way) else (pytest.mark.sweep,)
        found.append(pytest.param(*values, marks=marks))
    return found
