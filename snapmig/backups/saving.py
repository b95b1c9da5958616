"""The options and parents of a backup's save. Nothing else in backups calls save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from snapmig.backups.stored import StoredSnapshot
from snapmig.errors import KeyRequiredError, SnapmigError, UsageError
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.options.engine import AUTO, choose_coding
from snapmig.operations.options.keys import keys_of, parse_sealing
from snapmig.operations.options.parse import (
    parse_connect,
    parse_jobs,
    parse_layout,
    parse_packet_size,
)
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.save import SaveResult, save
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
    "connect": parse_connect,
    "monitor_timeout": parse_monitor_timeout,
}


def refused_option(options: Mapping[str, Any], repository: Location) -> tuple[str, str] | None:
    """Return the first invalid option of a save with the reason, or None."""
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
    sealing = {name: bool(options.get(name)) for name in ("encrypt", "sign")}
    try:
        parse_sealing(keys_of(options), **sealing)
    except UsageError as error:
        return "encrypt" if sealing["encrypt"] else "sign", error.message
    return _refused_coding(options)


def _refused_coding(options: Mapping[str, Any]) -> tuple[str, str] | None:
    # The save explains combinations in detail; here the first option stands for all. Missing
    # capabilities of this host are no fault of the configuration.
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
    Save a guest in full, or the changes since a parent.

    :param source: the image argument of :func:`snapmig.save`
    :param options: its other keyword arguments
    """
    more: dict[str, Any] = {} if parent is None else {"parent": str(parent.path)}
    return save(source, str(path), progress=progress, **{**options, **more})


def refused_parent(error: SnapmigError) -> bool:
    """
    Return whether a failed incremental save should be repeated in full.

    Usage errors, corruption and unsupported features may be due to the parent: RAM of another size,
    other packets; so is a missing key. A silent monitor or a full disk is not.
    """
    return error.exit_code in (2, 3, 4) or isinstance(error, KeyRequiredError)
