"""The one place where backups save: which options and which parents a save takes stands here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from snapmig.backups.stored import StoredSnapshot
from snapmig.errors import SnapmigError, UsageError
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.engine_choice import AUTO, choose_coding
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.save import SaveResult, save
from snapmig.operations.settings import parse_jobs, parse_layout, parse_packet_size
from snapmig.stores.location import Location, ObjectUrl

__all__ = ("refused_option", "refused_parent", "save_snapshot")

_CODING: dict[str, Any] = {
    "compression": "zlib",
    "accelerator": AUTO,
    "level": None,
    "window": None,
    "huffman": "dynamic",
    "depth": None,
}
"""What :func:`choose_coding` takes, with a save's defaults."""

_CHECKS: dict[str, Callable[[Any], object]] = {
    "jobs": parse_jobs,
    "packet_size": parse_packet_size,
    "monitor_timeout": parse_monitor_timeout,
}


def refused_option(options: Mapping[str, Any], repository: Location) -> tuple[str, str] | None:
    """Return the first of a save's options that makes no sense, and why; None where all do."""
    if options.get("live") and isinstance(repository, ObjectUrl):
        return "live", "a live save writes packets again, expected a repository in files"
    checks: dict[str, Callable[[Any], object]]
    checks = {**_CHECKS, "layout": partial(parse_layout, location=repository)}
    for name, check in checks.items():
        try:
            if name in options:
                check(options[name])
        except UsageError as error:
            return name, error.message
    return _refused_coding(options)


def _refused_coding(options: Mapping[str, Any]) -> tuple[str, str] | None:
    # Which of them are wrong together is for the save to say; here only that they are, under the
    # name of the first. What this host lacks is no fault of the configuration.
    given = {name: options[name] for name in _CODING if name in options}
    try:
        choose_coding(**{**_CODING, **given})
    except UsageError as error:
        return next(
            (name for name in given if name in error.message), next(iter(given))
        ), error.message
    except SnapmigError:
        return None
    return None


def save_snapshot(
    source: str,
    path: Location,
    parent: StoredSnapshot | None,
    options: Mapping[str, Any],
    progress: ProgressCallback | None,
) -> SaveResult:
    """
    Save a guest in full, or what changed since a parent.

    :param source: what :func:`snapmig.save` takes as image
    :param options: its keyword arguments, besides those that stand here
    """
    more: dict[str, Any] = {} if parent is None else {"parent": str(parent.path)}
    # Each is likely to be a parent itself.
    words = {"page_digests": True, **options, **more}
    return save(source, str(path), progress=progress, **words)


def refused_parent(error: SnapmigError) -> bool:
    """
    Return whether a failed incremental save is worth another try in full.

    What makes no sense, is corrupt or not supported may be so because of the parent: RAM of another
    size, other packets. A monitor that does not answer or a full disk is not.
    """
    return error.exit_code in (2, 3, 4)
