"""
Calendar durations in people's notation: ``1y5m7d2h``.

The letters are those of restic's ``--keep-within`` (years, months, days, hours; ``m`` is months),
plus ``w`` for seven days.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from snapmig.errors import UsageError

__all__ = ("Duration", "parse_duration")

_PATTERN = re.compile(
    r"(?:(\d{1,4})y)?(?:(\d{1,5})m)?(?:(\d{1,5})w)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Duration:
    """A calendar duration; ``text`` is its notation."""

    years: int
    months: int
    days: int
    hours: int
    text: str

    def __bool__(self) -> bool:
        return bool(self.years or self.months or self.days or self.hours)

    def __str__(self) -> str:
        return self.text

    def before(self, moment: datetime) -> datetime:
        """
        Return the moment this long before another one, in the other's time zone.

        Years and months keep the day of the month, or take the last day of a shorter month.
        """
        months = moment.year * 12 + moment.month - 1 - self.years * 12 - self.months
        year, month = divmod(months, 12)
        try:
            day = min(moment.day, calendar.monthrange(year, month + 1)[1])
            earlier = moment.replace(year=year, month=month + 1, day=day)
            return earlier - timedelta(days=self.days, hours=self.hours)
        except (ValueError, OverflowError):  # before the year 1
            return datetime.min.replace(tzinfo=UTC)

    def in_days(self) -> int:
        """Return whole days, a month being 30 and a year 365."""
        return self.years * 365 + self.months * 30 + self.days + self.hours // 24


def parse_duration(text: str) -> Duration:
    """
    Return the duration written as ``"1y5m7d2h"``. The parts keep this order; each may be left out.

    :raises UsageError: anything else
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or not text.strip():
        message = f"duration is {text!r}, expected one like 1y5m7d2h (years, months, days, hours)"
        raise UsageError(message)
    years, months, weeks, days, hours = (int(part or 0) for part in match.groups())
    return Duration(years, months, weeks * 7 + days, hours, text.strip())
