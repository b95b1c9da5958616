"""Facts about checks: what they find, and that in time they read everything."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.backups.check import is_due
from tests.support.backups import built

TIME = datetime(2026, 11, 1, tzinfo=UTC)


def damage(path):
    """Change a byte of the last packet."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_what_is_whole_is_ok(place):
    """All is read, and nothing is said."""
    place.backup("run")
    outcome = place.backup("check")

    outcome.ok(out="")


def test_results_say_what_was_read(place):
    """With --json each snapshot has a line."""
    place.put(TIME, 1)
    found, summary = place.told("check")

    assert (found["result"], found["read"], found["packets"]) == ("ok", True, 1)
    assert (summary["command"], summary["exit_code"]) == ("check", 0)


def test_damage_is_found(place):
    """A changed byte is one sentence with the snapshot's name, and the exit code of damage."""
    path = place.put(TIME, 1)
    damage(path)
    outcome = place.backup("check")

    outcome.fails(3, start=f"snapmig: web: {path.name}: packet 0: offset 0x3000: checksum")


def test_damage_of_one_does_not_stop_the_check(place):
    """Snapshots after a damaged one are read too."""
    damage(place.put(TIME, 1))
    place.put(TIME + timedelta(days=1), 2)

    assert [item.get("result") for item in place.told("check")] == ["damaged", "ok", None]


def test_a_missing_parent_is_found(place):
    """A snapshot that can't be restored is damaged, however whole its own bytes are."""
    place.put(TIME, 2, parent=1)
    outcome = place.backup("check")

    outcome.fails(3, "is not here")


@pytest.mark.parametrize(
    ("content", "code"), [(b"", 3), (built(1, TIME, version_major=9), 4)], ids=["empty", "newer"]
)
def test_an_unreadable_snapshot_is_found(place, content, code):
    """A file that can't be read as a snapshot has the exit code of the reason."""
    place.put(TIME, 1).write_bytes(content)

    place.backup("check").ends(code)


def test_foreign_files_are_skipped_with_a_warning(place):
    """Foreign files are not checked, and a warning names them."""
    place.put(TIME, 1)
    (place.folder / "repo/web/notes.txt").write_text("mine")
    outcome = place.backup("check")

    outcome.warns(err="snapmig: warning: web: notes.txt is not of a backup, and was skipped\n")


def test_a_part_is_read_each_day(place):
    """With check_within each snapshot is looked at, and today's part is read."""
    place.configure('check_within = "10d"')
    for number in range(10):
        place.put(TIME + timedelta(hours=number), number)
    found = place.told("check")[:-1]

    assert [len(found), sum(item["read"] for item in found)] == [10, 1]


def test_days_left_out_are_made_up_for(place):
    """With --days the parts of that many days are read."""
    place.configure('check_within = "10d"')
    for number in range(10):
        place.put(TIME + timedelta(hours=number), number)

    assert sum(item["read"] for item in place.told("check", "--days=4")[:-1]) == 4


def test_all_can_be_asked_for(place):
    """With --all everything is read whatever is configured."""
    place.configure('check_within = "10d"')
    for number in range(10):
        place.put(TIME + timedelta(hours=number), number)

    assert all(item["read"] for item in place.told("check", "--all")[:-1])


@given(st.binary(min_size=16, max_size=16), st.integers(1, 400), st.integers(0, 40000))
def test_in_each_period_everything_is_read_once(snapshot_id, period, start):
    """Whatever its id, a snapshot is due on exactly one day of each period."""
    days = [day for day in range(start, start + period) if is_due(snapshot_id, period, day)]

    assert len(days) == 1


@given(st.binary(min_size=16, max_size=16), st.integers(2, 60), st.integers(0, 40000), st.data())
def test_catching_up_reads_what_those_days_would_have(snapshot_id, period, day, data):
    """A check of several days reads what checks on each of them would have read."""
    days = data.draw(st.integers(1, period))
    each = any(is_due(snapshot_id, period, day - back) for back in range(days))

    assert is_due(snapshot_id, period, day, days) == each
