"""
Facts about what rules keep and remove.

What restic keeps of the snapshots in restic-forget.json was asked of restic itself, with
``restic forget --dry-run --json``; what it says of itself beyond that are its document's examples.
"""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.backups.durations import parse_duration
from snapmig.backups.retention import UNLIMITED, Candidate, Rules, decide

NOW = datetime(2026, 11, 23, tzinfo=UTC)
RESTIC = json.loads((Path(__file__).parent / "restic-forget.json").read_text())
BERLIN = ZoneInfo("Europe/Berlin")


def candidates(times, parents=None):
    """Return snapshots of times, each with an id, some with the number of their parent."""
    parents = parents or {}
    return [
        Candidate(
            f"{number:03}",
            time,
            (number + 1).to_bytes(16, "big"),
            None if number not in parents else (parents[number] + 1).to_bytes(16, "big"),
        )
        for number, time in enumerate(times)
    ]


def kept(items, rules, now=NOW):
    """Return the names of what is kept."""
    return {item.candidate.name for item in decide(items, rules, now) if item.kept}


def days(count, last=NOW):
    """Return a time a day up to a last one."""
    return [last - timedelta(days=back) for back in reversed(range(count))]


@pytest.mark.parametrize("number", range(len(RESTIC["policies"])))
def test_the_rules_are_restics(number):
    """Of the same snapshots the same are kept; the oldest, where a rule has room, besides."""
    rules, expected = RESTIC["policies"][number]
    times = [datetime.fromisoformat(text).replace(tzinfo=BERLIN) for text in RESTIC["times"]]
    words = {key: parse_duration(rule) if key == "within" else rule for key, rule in rules.items()}
    ours = {
        int(item.candidate.name): item.reasons
        for item in decide(candidates(times), Rules(**words), NOW)
        if item.kept
    }
    besides = {name for name, why in ours.items() if all("oldest" in reason for reason in why)}

    assert (set(ours) - besides, besides - {0}) == (set(expected), set())


def test_restics_example_of_sundays():
    """Of a snapshot each Sunday for 12 weeks, 4 daily ones are those of the last 4 Sundays."""
    sundays = [datetime(2019, 9, 1, 11, tzinfo=UTC) + timedelta(weeks=week) for week in range(12)]

    assert kept(candidates(sundays), Rules(daily=4)) == {"008", "009", "010", "011"}


def test_restics_example_of_a_hundred_years():
    """Daily snapshots of years are kept as restic's document counts them."""
    times = days(365 * 12 + 3, datetime(2026, 11, 22, 12, tzinfo=UTC))  # up to a Sunday
    found = decide(candidates(times), Rules(daily=7, weekly=5, monthly=12, yearly=9), NOW)
    reasons = [item.reasons for item in found if item.kept]
    counts = [sum(name in item for item in reasons) for name in ("daily", "weekly", "monthly")]

    assert counts == [7, 5, 12]
    # Besides the first of each: of the 9 years, last December's end is among the 12 months already.
    assert len(reasons) == 7 + 4 + 11 + 7


def test_the_oldest_is_kept_while_there_is_room():
    """With fewer weeks than may be kept, the oldest snapshot of all is kept additionally."""
    # Tuesday to Thursday of one week.
    times = [datetime(2026, 11, day, tzinfo=UTC) for day in (17, 18, 19)]
    found = decide(candidates(times), Rules(weekly=2), NOW)

    assert [item.reasons for item in found] == [("weekly",), (), ("oldest weekly",)]


def test_the_oldest_is_not_kept_where_there_is_no_room():
    """With as many days as may be kept, the oldest snapshot is one like others."""
    times = [datetime(2026, 11, 17, hour, tzinfo=UTC) for hour in (1, 2)]

    assert kept(candidates(times), Rules(daily=1)) == {"001"}


def test_days_are_those_of_the_clock_on_the_wall():
    """Two snapshots of one day here may be of two days in UTC."""
    times = [datetime(2026, 6, 2, 0, 30, tzinfo=BERLIN), datetime(2026, 6, 2, 23, tzinfo=BERLIN)]
    utc = [time.astimezone(UTC) for time in times]

    assert kept(candidates([times[0], *times]), Rules(daily=1)) == {"002"}
    assert kept(candidates(utc), Rules(daily=2)) == {"000", "001"}


def test_the_hour_that_comes_twice_is_two():
    """When summer time ends, both hours of one name have their snapshot."""
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).astimezone(BERLIN)
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC).astimezone(BERLIN)
    between = datetime(2026, 10, 25, 1, 10, tzinfo=UTC).astimezone(BERLIN)
    assert (first.hour, second.hour) == (2, 2)

    assert kept(candidates([first, between, second]), Rules(hourly=2)) == {"000", "002"}


def test_weeks_begin_on_monday_and_cross_years():
    """The last days of December and the first of January may be one week."""
    times = [datetime(2025, 12, 29, tzinfo=UTC), datetime(2026, 1, 4, tzinfo=UTC)]

    assert kept(candidates([*times, times[1] + timedelta(days=1)]), Rules(weekly=2)) == {
        "001",
        "002",
    }


def test_within_counts_from_the_newest():
    """A guest that was off for a year keeps the last week before that."""
    items = candidates(days(10, datetime(2025, 6, 10, tzinfo=UTC)))

    assert kept(items, Rules(within=parse_duration("3d"))) == {"007", "008", "009"}


def test_the_future_counts_for_no_rule():
    """A snapshot of a clock that was wrong is kept, and pushes no other out."""
    items = candidates([*days(5), NOW + timedelta(days=3650)])
    found = decide(items, Rules(last=1, within=parse_duration("1d")), NOW)

    assert [(item.candidate.name, item.reasons) for item in found if item.kept] == [
        ("005", ("from the future",)),
        ("004", ("last", "within 1d")),
    ]


def test_without_rules_all_is_kept():
    """Rules that say nothing remove nothing."""
    assert len(kept(candidates(days(9)), Rules())) == 9


def test_parents_are_kept_with_their_reason():
    """All parents of the last snapshot are kept, and no others."""
    found = decide(candidates(days(5), {4: 2, 3: 2, 2: 0}), Rules(last=1), NOW)

    assert [item.reasons for item in found] == [
        ("last",),
        (),
        ("parent of 004",),
        (),
        ("parent of 002",),
    ]


def test_both_copies_of_a_parent_are_kept():
    """Where somebody copied a parent, it is not guessed which one is needed."""
    items = candidates(days(3), {2: 0})
    copy = Candidate("copy", items[0].time, items[0].id)

    assert kept([*items, copy], Rules(last=1)) == {"000", "copy", "002"}


def test_parents_in_a_circle_end():
    """A circle, which no run makes, is kept whole and hangs nothing."""
    assert kept(candidates(days(3), {2: 1, 1: 2}), Rules(last=1)) == {"001", "002"}


RULES = st.builds(
    Rules,
    **{
        item.name: st.integers(0, 5) | st.just(UNLIMITED)
        for item in fields(Rules)
        if item.name != "within"
    },
    within=st.none() | st.sampled_from(["0d", "5h", "3d", "2m", "1y"]).map(parse_duration),
)
TIMES = st.lists(
    st.integers(0, 3 * 365 * 24 * 60).map(lambda ago: NOW - timedelta(minutes=ago)),
    min_size=1,
    max_size=30,
)


@st.composite
def chained(draw):
    """Draw snapshots of which some build on older ones, or on any in a world of broken clocks."""
    times = draw(TIMES)
    numbers = range(len(times))
    parents = {number: draw(st.sampled_from(numbers)) for number in numbers if draw(st.booleans())}
    whole = [draw(st.sampled_from([True, True, True, False])) for _ in numbers]
    pairs = zip(candidates(times, parents), whole, strict=True)
    return [replace(item, whole=sound) for item, sound in pairs]


@given(chained(), RULES)
def test_what_a_kept_snapshot_needs_is_kept(items, rules):
    """No rule and no clock removes a parent from its child."""
    names = kept(items, rules)
    by_id = {item.id: item for item in items}

    assert {
        by_id[item.parent_id].name for item in items if item.name in names and item.parent_id
    } <= names


@given(chained(), RULES, RULES)
def test_more_rules_never_keep_less(items, one, other):
    """A snapshot kept by one rule is removed by no other rule beside it."""
    both = {
        item.name: max(getattr(one, item.name), getattr(other, item.name), key=_reach)
        for item in fields(Rules)
        if item.name != "within"
    }
    wider = Rules(**both, within=one.within)

    assert not one or kept(items, one) <= kept(items, wider)


def _reach(count):
    return float("inf") if count == UNLIMITED else count


@given(chained(), RULES)
def test_what_was_kept_stays(items, rules):
    """A second time, with nothing new, nothing more is removed."""
    names = kept(items, rules)

    assert kept([item for item in items if item.name in names], rules) == names


@given(chained(), RULES)
def test_rules_never_remove_everything(items, rules):
    """Whatever the rules are, the newest snapshot that can be restored stays."""
    whole = [item for item in items if item.whole]
    newest = max(whole, key=lambda item: (item.time, item.name), default=None)

    assert newest is None or newest.name in kept(items, rules)


@given(chained(), RULES)
def test_what_is_damaged_changes_nothing_for_others(items, rules):
    """Damaged snapshots change nothing about the fate of whole ones."""
    whole = [item for item in items if item.whole]
    ours = {item.candidate.name: item.reasons for item in decide(items, rules, NOW)}
    theirs = {item.candidate.name: item.reasons for item in decide(whole, rules, NOW)}

    assert all(set(reasons) <= set(ours[name]) for name, reasons in theirs.items())
    assert all(ours[item.name] for item in items if not item.whole)


@given(chained(), RULES)
def test_each_snapshot_is_decided_once(items, rules):
    """All are decided, the newest first, and none twice."""
    decided = [item.candidate for item in decide(items, rules, NOW)]

    assert decided == sorted(items, key=lambda item: (item.time, item.name), reverse=True)


@given(TIMES, st.integers(1, 40))
def test_last_keeps_that_many(times, count):
    """keep_last keeps the newest, as many as there are."""
    assert len(kept(candidates(times), Rules(last=count))) == min(count, len(times))
