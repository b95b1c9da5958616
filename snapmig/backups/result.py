"""The outcome of a run for a guest."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("BackupResult",)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """
    The outcome for a guest; sizes are in bytes.

    :param result: ``saved``, ``skipped``, ``failed``, or ``planned`` in a dry run
    :param kind: ``full`` or ``incremental``, None if never decided
    :param reason: of the kind, of the skip, or of the failure
    :param expected_size: the size compared with the free space
    :param changed_pages: pages of its own, zero pages left out
    :param removed: snapshots removed by the rules
    """

    guest: str
    result: str
    source: str
    snapshot: str | None = None
    kind: str | None = None
    parent: str | None = None
    reason: str | None = None
    expected_size: int | None = None
    ram_size: int | None = None
    stored_size: int | None = None
    disk_size: int | None = None
    pause_seconds: float | None = None
    changed_pages: int | None = None
    removed: tuple[str, ...] = ()
    seconds: float = 0.0
