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
from snapmig.operations.options.parse import DOMAIN_PREFIX, GUEST_PREFIXES, parse_jobs, parse_rate
from snapmig.operations.options.table import file_fields
from snapmig.toml_errors import explain, parse_toml, read_text

__all__ = ("BatchFile", "RestoreTable", "SaveTable", "Table", "read_batch_file")

Made = TypeVar("Made", bound=msgspec.Struct)


class Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Keys of jobs of both kinds besides their options; None for the default."""

    image: str
    snapshot: str
    name: str | None = None
    host: str | None = None


def _with_options(table: str, base: type[msgspec.Struct] = Table) -> Any:
    return msgspec.defstruct(
        "Options", file_fields(table), bases=(base,), forbid_unknown_fields=True, kw_only=True
    )


class SaveTable(_with_options("save")):  # type: ignore[misc]
    """A ``[[save]]``: options of :func:`snapmig.save`."""


class RestoreTable(_with_options("restore")):  # type: ignore[misc]
    """A ``[[restore]]``: options of :func:`snapmig.restore`."""


class DefaultsTable(_with_options("defaults", msgspec.Struct)):  # type: ignore[misc]
    """``[defaults]``: options of all jobs of the kind, unless a job sets its own."""

    host: str | None = None


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
        """Return the tables of saves, checked."""
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
    :raises OSError: the file can't be read
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
        image = str(table.get("image"))
        if not image.startswith(GUEST_PREFIXES) and "live" not in table:
            merged.pop("live", None)  # as a default only for running guests
        if image.startswith(GUEST_PREFIXES) and "resume" not in table:
            merged.pop("resume", None)  # and only for files
        if not image.startswith(DOMAIN_PREFIX) and "connect" not in table:
            merged.pop("connect", None)  # likewise for those of libvirt's
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
