"""The number of examples: fewer in short runs, for each starts processes and writes files."""

from __future__ import annotations

import os

from hypothesis import settings

LONG = os.environ.get("SNAPMIG_LONG_TESTS") == "1"
"""Set by ``make test-more``."""


def examples(count: int) -> settings:
    """Return settings with so many examples, a quarter of them in a short run."""
    return settings(max_examples=count if LONG else max(4, count // 4))
