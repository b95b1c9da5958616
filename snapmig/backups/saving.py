"""The one place where backups save: which options and which parents a save takes stands here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from snapmig.backups.repository import StoredSnapshot
from snapmig.errors import SnapmigError, UsageError
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.save import SaveResult, save
from snapmig.operations.settings import (
    parse_jobs,
    parse_layout,
    parse_level,
    parse_packet_size,
    parse_window,
)

__all__ = ("can_save_incrementally", "refused_option", "refused_parent", "save_snapshot")

_CHECKS: dict[str, Callable[[Any], object]] = {
    "jobs": parse_jobs,
    "layout": parse_layout,
    "level": parse_level,
    "packet_size": parse_packet_size,
    "window": parse_window,
}


def refused_option(options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first of a save's options that makes no sense, and why; None where all do."""
    for name, check in _CHECKS.items():
        try:
            if name in options:
                check(options[name])
        except UsageError as error:
            return name, error.message
    return None


def can_save_incrementally() -> bool:
    """Return whether this version saves what changed since a parent."""
    return "parent" in inspect.signature(save).parameters


def save_snapshot(
    source: str,
    path: Path,
    parent: StoredSnapshot | None,
    options: Mapping[str, Any],
    progress: ProgressCallback | None,
) -> SaveResult:
    """
    Save a guest in full, or what changed since a parent.

    :param source: what :func:`snapmig.save` takes as image
    :param options: its keyword arguments, besides those that stand here
    """
    more: dict[str, Any] = {} if parent is None else {"parent": parent.path}
    return save(source, path, progress=progress, **options, **more)


def refused_parent(error: SnapmigError) -> bool:
    """
    Return whether a failed incremental save is worth another try in full.

    What makes no sense, is corrupt or not supported may be so because of the parent: RAM of another
    size, other packets. A monitor that does not answer or a full disk is not.
    """
    return error.exit_code in (2, 3, 4)
