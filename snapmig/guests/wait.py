"""How long a monitor is waited for, and who hears of it; imports nothing that takes long."""

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
"""QEMU answers in milliseconds; its main loop may stand still for seconds while it syncs a disk."""

_LONGEST_S = 86_400.0

NoticeCallback = Callable[[str], None]
"""Called, in the caller's thread, with a sentence that the user should read now."""


class MonitorWait(NamedTuple):
    """
    How long each answer of a monitor, its greeting too, may take.

    :param limit_s: seconds, after which it is an error
    :param notice: told once that a monitor does not greet, while it is still waited for
    """

    limit_s: float = MONITOR_TIMEOUT_S
    notice: NoticeCallback | None = None


USUAL_WAIT = MonitorWait()


def parse_monitor_timeout(seconds: float | str | None) -> float:
    """
    Return a limit in seconds; None is the usual one.

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
