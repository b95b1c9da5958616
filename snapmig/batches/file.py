"""
Strict parser of a batch file; docs/batch.md is its reference.

Every error is one sentence with the file, the table and the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from snapmig.errors import UsageError
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.options.parse import GUEST_PREFIX, parse_jobs
from snapmig.operations.runs.workers import parse_rate
from snapmig.toml_errors import explain, parse_toml, read_text

__all__ = ("BatchFile", "RestoreTable", "SaveTable", "Table", "read_batch_file")

Made = TypeVar("Made", bound=msgspec.Struct)


class Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Keys common to both kinds of jobs; None for the default."""

    name: str | None = None
    host: str | None = None
    format: str | None = None
    accelerator: str | None = None
    depth: int | None = None
    force: bool | None = None
    address: dict[str, int | str] | None = None
    arch: str | None = None
    follow_remote_parents: bool | None = None


class SaveTable(Table):
    """A ``[[save]]``: the arguments of :func:`snapmig.save`."""

    image: str
    snapshot: str
    base: list[str] | None = None
    parent: str | None = None
    compression: str | None = None
    level: int | str | None = None
    window: str | None = None
    huffman: str | None = None
    packet_size: int | str | None = None
    layout: str | None = None
    deltas: bool | None = None
    page_digests: bool | None = None
    attach: dict[str, str] | None = None
    live: bool | None = None
    share: str | None = None


class RestoreTable(Table):
    """A ``[[restore]]``: the arguments of :func:`snapmig.restore`."""

    snapshot: str
    image: str
    in_place: bool | None = None
    block: str | None = None
    for_qemu: bool | None = None


class DefaultsTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[defaults]``: values for jobs without their own, where they apply."""

    host: str | None = None
    accelerator: str | None = None
    depth: int | None = None
    force: bool | None = None
    follow_remote_parents: bool | None = None
    parent: str | None = None
    compression: str | None = None
    level: int | str | None = None
    window: str | None = None
    huffman: str | None = None
    packet_size: int | str | None = None
    layout: str | None = None
    deltas: bool | None = None
    page_digests: bool | None = None
    attach: dict[str, str] | None = None
    live: bool | None = None


class BatchFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """
    The contents of a file.

    :param jobs: worker processes, for all guests together
    :param saves: its ``[[save]]`` tables in order, and likewise ``restores``
    """

    jobs: int | None = None
    max_guests_at_once: int | None = None
    fail_fast: bool = False
    bwlimit: int | str | None = None
    monitor_timeout: float | None = None
    defaults: dict[str, Any] = {}
    save: list[dict[str, Any]] = []
    restore: list[dict[str, Any]] = []

    def saves(self, shown: str) -> list[SaveTable]:
        """Return the checked tables of saves."""
        return _tables(self.save, self._defaults(shown), SaveTable, f"{shown}: [[save]]")

    def restores(self, shown: str) -> list[RestoreTable]:
        """Return the checked tables of restores."""
        return _tables(self.restore, self._defaults(shown), RestoreTable, f"{shown}: [[restore]]")

    def _defaults(self, shown: str) -> dict[str, Any]:
        _convert(self.defaults, DefaultsTable, f"{shown}: [defaults]")
        return self.defaults


def read_batch_file(path: Path) -> BatchFile:
    """
    Return the contents of a file.

    :raises UsageError: not a regular file, too large, not TOML, an unknown key or a wrong type
    :raises OSError: it can't be read
    """
    try:
        content = parse_toml(read_text(path))
    except UsageError as error:
        error.path = str(path)
        raise
    file = _convert(content, BatchFile, str(path))
    if file.max_guests_at_once is not None and file.max_guests_at_once < 1:
        message = f"max_guests_at_once is {file.max_guests_at_once}, expected at least 1"
        raise UsageError(message, path=str(path))
    try:
        parse_jobs(file.jobs)
        parse_rate(1 if file.bwlimit is None else file.bwlimit)
        parse_monitor_timeout(file.monitor_timeout)
    except UsageError as error:
        error.path = str(path)
        raise
    if not file.save and not file.restore:
        raise UsageError("has no [[save]] and no [[restore]]", path=str(path))
    return file


def _tables(
    raw: list[dict[str, Any]], defaults: dict[str, Any], kind: type[Made], shown: str
) -> list[Made]:
    known = {field.name for field in msgspec.structs.fields(kind)}
    usable = {key: value for key, value in defaults.items() if key in known}
    tables = []
    for number, table in enumerate(raw, 1):
        merged = {**usable, **table}
        if not str(table.get("image")).startswith(GUEST_PREFIX) and "live" not in table:
            merged.pop("live", None)  # as a default it is meant for those that run
        if "attach" in usable and isinstance(table.get("attach"), dict):
            merged["attach"] = {**usable["attach"], **table["attach"]}
        tables.append(_convert(merged, kind, f"{shown} {number}"))
    return tables


def _convert(content: dict[str, Any], kind: type[Made], shown: str) -> Made:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        key, message = explain(error, content, kind)
        where = ": ".join(part for part in (shown, key) if part)
        raise UsageError(f"{where}: {message}") from error
