"""Facts about restores by guest and time."""

from datetime import UTC, datetime, timedelta

import pytest

from snapmig.backups.restore import parse_moment
from snapmig.errors import UsageError

TIME = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def filled(place):
    """Give a place with a snapshot of each of three days, with that day's contents."""
    for day in range(3):
        contents = b"contents of day %d" % day
        place.put(TIME + timedelta(days=day), day + 1, contents=contents)
    return place


def restored(place, *arguments):
    """Return the contents that a restore gives."""
    place.backup("restore", *arguments, "web", place.folder / "out").ok()
    return (place.folder / "out").read_bytes()


def test_the_last_one_is_restored(filled):
    """Without a time it is the newest."""
    assert restored(filled) == b"contents of day 2"


@pytest.mark.parametrize(
    ("before", "day"),
    [
        ("2026-11-02T12:00:00Z", 0),
        ("2026-11-02T12:00:01Z", 1),
        ("2026-11-02T13:00:01+01:00", 1),
        ("2126-01-01", 2),
    ],
)
def test_the_last_one_before_a_time_is_restored(filled, before, day):
    """A snapshot of that very moment is not before it."""
    assert restored(filled, f"--before={before}") == b"contents of day %d" % day


@pytest.mark.parametrize("name", ["2026-11-02T12-00-00Z.snap", "2026-11-02T12-00-00Z"])
def test_one_can_be_named(filled, name):
    """A name is taken with and without its suffix."""
    assert restored(filled, f"--snapshot={name}") == b"contents of day 1"


def test_nothing_before_is_an_error(filled):
    """Where there is no such snapshot, nothing newer is taken in its place."""
    outcome = filled.backup("restore", "--before=2026-11-01T12:00:00Z", "web", "out")

    outcome.fails(1, "there is no snapshot from before")


def test_an_unknown_name_is_an_error(filled):
    """A name that is not there is said with the folder."""
    outcome = filled.backup("restore", "--snapshot=none", "web", "out")

    assert outcome.err == (f"snapmig: web: {filled.folder}/repo/web: no snapshot is named 'none'\n")


def test_a_damaged_one_is_not_passed_over(filled):
    """Another moment than the one that was asked for is not given silently."""
    path = filled.folder / "repo/web/2026-11-03T12-00-00Z.snap"
    raw = bytearray(path.read_bytes())
    raw[4096] ^= 1
    path.write_bytes(raw)
    outcome = filled.backup("restore", "web", filled.folder / "out")

    outcome.fails(3, str(path))


def test_a_missing_parent_is_an_error(filled):
    """A snapshot that can't be restored whole is not restored at all."""
    filled.put(TIME + timedelta(days=5), 9, parent=8)
    outcome = filled.backup("restore", "web", filled.folder / "out")

    outcome.fails(3, "is not here")


def test_the_future_is_not_the_last(filled):
    """A snapshot of a clock that was wrong is restored only by its name."""
    filled.put(datetime.now(UTC) + timedelta(days=365), 9, contents=b"future")

    assert restored(filled) == b"contents of day 2"


def test_an_existing_target_is_not_replaced(filled):
    """As with snapmig restore, that has to be asked for."""
    (filled.folder / "out").write_bytes(b"mine")

    filled.backup("restore", "web", filled.folder / "out").fails(1)
    assert restored(filled, "--force") == b"contents of day 2"


def test_json_says_what_was_restored(filled):
    """The result has the guest, the snapshot and its time."""
    (found,) = filled.told("restore", "web", filled.folder / "out")

    assert (found["message_type"], found["guest"], found["time"], found["ram_size"]) == (
        "restore",
        "web",
        "2026-11-03T12:00:00+00:00",
        17,
    )


def test_a_restore_needs_no_lock(filled):
    """A repository that can only be read, or is worked on, can be restored from."""
    restored(filled)

    assert not (filled.folder / "repo/web/.lock").exists()


def test_a_time_that_is_none_is_an_error_of_usage(filled):
    """A text that is neither a time nor a duration is refused in one sentence with examples."""
    outcome = filled.backup("restore", "--before=yesterday", "web", "out")

    outcome.fails(2, "time is 'yesterday', expected one like 2026-11-23")


def test_how_long_ago_is_a_time():
    """A duration is counted back from now."""
    assert parse_moment("2d", TIME) == TIME - timedelta(days=2)


def test_a_time_without_a_zone_is_local(monkeypatch):
    """A time is read as local, like that of a clock on the wall."""
    import time

    monkeypatch.setenv("TZ", "Etc/GMT-5")
    time.tzset()
    try:
        assert parse_moment("2026-11-23 02:15") == datetime(2026, 11, 22, 21, 15, tzinfo=UTC)
        assert parse_moment("2026-11-23") == datetime(2026, 11, 22, 19, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "now", "2026-13-01", "25:00"])
def test_what_is_no_time_is_refused(text):
    """Nothing is guessed."""
    with pytest.raises(UsageError, match="expected one like"):
        parse_moment(text)


def test_an_unknown_format_is_an_error_of_usage(filled):
    """A format that is not known is one sentence."""
    outcome = filled.backup("restore", "--format=vmdk", "web", filled.folder / "out")

    outcome.fails(2, "vmdk")
