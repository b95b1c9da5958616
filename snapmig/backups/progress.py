"""Progress of the guests of a backup command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from snapmig.operations.progress import ProgressCallback

__all__ = ("ShowProgress", "hidden")

ShowProgress = Callable[[str], AbstractContextManager[ProgressCallback | None]]
"""Returns, for a guest's name, a context that gives a progress callback."""


def hidden(_guest: str) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()
