"""Time limits on a monitor's answers, and the notice of a wait. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from snapmig.errors import UsageError

__all__ = (
    "MONITOR_TIMEOUT_S",
    "USUAL_WAIT",
    "MonitorWait",
    "NoticeCallback",
    "parse_monitor_timeout",
)

MONITOR_TIMEOUT_S = 30.0
"""
Seconds. QEMU answers in milliseconds, but its main loop may stand still for seconds while it syncs
a disk.
"""

_LONGEST_S = 86_400.0

NoticeCallback = Callable[[str], None]
"""Called, in the caller's thread, with a sentence for the user to read now."""


class MonitorWait(NamedTuple):
    """
    Time limit for each answer of a monitor, including its greeting.

    :param limit_s: in seconds; exceeding it is an error
    :param notice: called once if a monitor does not greet soon, while still waiting for it
    """

    limit_s: float = MONITOR_TIMEOUT_S
    notice: NoticeCallback | None = None


USUAL_WAIT = MonitorWait()


def parse_monitor_timeout(seconds: float | str | None) -> float:
    """
    Return a limit in seconds; None gives the default.

    :raises UsageError: not a number of seconds above 0, up to a day
    """
    if seconds is None:
        return MONITOR_TIMEOUT_S
    try:
        value = float(seconds)
    except ValueError:
        value = 0.0
    if not 0 < value <= _LONGEST_S:
        message = f"monitor timeout is {seconds!r}, expected seconds above 0, up to a day"
        raise UsageError(message)
    return value
