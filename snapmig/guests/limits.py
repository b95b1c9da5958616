"""Limits of a live save. Imports nothing slow."""

from __future__ import annotations

from typing import NamedTuple

from snapmig.errors import UsageError

__all__ = ("LiveLimits", "parse_live_limits")

_LONGEST_DOWNTIME_MS = 2_000_000
_LONGEST_S = 86_400.0


class LiveLimits(NamedTuple):
    """
    Limits of a live save over multifd.

    :param downtime_ms: milliseconds that the guest may stand still; QEMU's own value if None
    :param pause_after_s: seconds after which the guest is stopped, however much is left to send
    """

    downtime_ms: int | None = None
    pause_after_s: float = 300.0


def parse_live_limits(
    max_downtime: float | str | None, pause_after: float | str | None
) -> LiveLimits:
    """
    Return limits; None gives the default.

    :param max_downtime: milliseconds
    :param pause_after: seconds
    :raises UsageError: not a number, or out of range
    """
    limits = LiveLimits()
    if max_downtime is not None:
        found = _number("max downtime", max_downtime, "milliseconds", _LONGEST_DOWNTIME_MS)
        limits = limits._replace(downtime_ms=max(1, round(found)))
    if pause_after is not None:
        found = _number("pause after", pause_after, "seconds", _LONGEST_S)
        limits = limits._replace(pause_after_s=found)
    return limits


def _number(name: str, given: float | str, unit: str, most: float) -> float:
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise UsageError(f"{name} is {given!r}, expected {unit} from 0 to {most:g}")
    return value
