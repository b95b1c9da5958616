"""
Tables and keys of a configuration with their types; docs/backups.md explains them.

Every key has a default except ``repository`` and a guest's ``source``. None means "not given", so
that a guest's table can override the general one key by key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, defstruct

from snapmig.operations.options.table import file_fields

__all__ = ("TABLES", "GuestTable", "HooksTable", "RetentionTable", "SaveTable", "TopTable")

Count = Annotated[int, Meta(ge=0)] | Literal["unlimited"]
Seconds = Annotated[int, Meta(ge=0, le=10_000_000)]
FullEvery = Annotated[int, Meta(ge=1)] | str
Arguments = list[str]


class RetentionTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[retention]``: rules of prune."""

    keep_last: Count = 0
    keep_hourly: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0
    keep_within: str | None = None


class HooksTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[hooks]``: programs run around a save."""

    before: Arguments = []
    after: Arguments = []
    error: Arguments = []
    timeout: Annotated[int, Meta(ge=1, le=10_000_000)] = 600


SaveTable = defstruct(
    "SaveTable", file_fields("backup"), frozen=True, kw_only=True, forbid_unknown_fields=True
)
"""``[save]``: options of ``snapmig save``."""


class GuestTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[guests.NAME]``: a guest and its deviations from the general tables."""

    source: str
    format: str | None = None
    base: list[str] = []
    attach: dict[str, Any] = {}
    optional: bool = False
    full_every: FullEvery | None = None
    check_within: str | None = None
    max_age: str | None = None
    retention: dict[str, Any] = {}
    hooks: dict[str, Any] = {}
    save: dict[str, Any] = {}


class TopTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    repository: str
    roots: str | None = None
    lock_wait: Seconds = 0
    nice: Annotated[int, Meta(ge=-20, le=19)] | None = None
    ionice: str | None = None
    full_every: FullEvery = 1
    check_within: str | None = None
    max_age: str | None = None
    retention: dict[str, Any] = {}
    hooks: dict[str, Any] = {}
    save: dict[str, Any] = {}
    guests: dict[str, Any] = {}


TABLES: dict[str, type[Struct]] = {
    "retention": RetentionTable,
    "hooks": HooksTable,
    "save": SaveTable,
}
"""The tables that both the file and a guest may have."""
