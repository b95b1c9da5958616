"""Facts about spans of the calendar."""

from datetime import UTC, datetime

import pytest

from snapmig.backups.durations import parse_duration
from snapmig.errors import UsageError

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5h", datetime(2026, 3, 31, 7, tzinfo=UTC)),
        ("1d", datetime(2026, 3, 30, 12, tzinfo=UTC)),
        ("2w", datetime(2026, 3, 17, 12, tzinfo=UTC)),
        ("1m", datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("13m", datetime(2025, 2, 28, 12, tzinfo=UTC)),
        ("2y1m", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("1y5m7d2h", datetime(2024, 10, 24, 10, tzinfo=UTC)),
    ],
)
def test_a_span_before_a_moment(text, expected):
    """Months are the calendar's, and their days those that there are."""
    assert parse_duration(text).before(NOON) == expected


def test_a_span_beyond_all_years_ends_at_the_first():
    """A time before the calendar is the calendar's beginning."""
    assert parse_duration("9999y").before(NOON).year == 1


@pytest.mark.parametrize(
    "text", ["", " ", "d", "1", "1x", "-1d", "1d2y", "1.5d", "1d ago", "\u0661d"]
)
def test_what_is_no_span_is_refused(text):
    """Anything else than numbers with units in their order is one sentence."""
    with pytest.raises(UsageError, match="expected one like 1y5m7d2h"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("1m", 30), ("1y1w", 372), ("47h", 1)])
def test_days_of_a_span(text, days):
    """A span has whole days, a month being 30 and a year 365."""
    assert parse_duration(text).in_days() == days
