"""Facts about lists of snapshots."""

from datetime import UTC, datetime, timedelta

TIME = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_a_snapshot_is_listed_as_it_says(place):
    """Name, id, time, kind and parent of each are there for programs."""
    place.put(TIME, 1)
    place.put(TIME + timedelta(days=1), 2, parent=1)
    first, second, summary = place.told("list")

    assert (first["snapshot_id"][-2:], first["kind"], first["parent"], first["time"]) == (
        "01",
        "full",
        None,
        "2026-11-01T12:00:00+00:00",
    )
    assert (second["kind"], second["parent"], second["problem"]) == (
        "incremental",
        "2026-11-01T12-00-00Z.snap",
        None,
    )
    assert (summary["command"], summary["exit_code"]) == ("list", 0)


def test_a_missing_parent_is_said(place):
    """A snapshot that can't be restored is listed with the reason, and is a warning."""
    place.put(TIME, 2, parent=1)
    outcome = place.backup("list")

    outcome.warns("is not here")
    assert "missing" in outcome.out


def test_an_unreadable_file_is_listed(place):
    """A file that does not say what it is, is in the list, and stays where it is."""
    path = place.put(TIME, 1)
    path.write_bytes(b"")
    found, _ = place.told("list")

    assert (found["snapshot"], found["time"], found["problem"][:14], path.exists()) == (
        path.name,
        None,
        "not a snapshot",
        True,
    )


def test_a_list_is_printed_wherever_it_goes(place):
    """A list is what was asked for, and so is not quiet in a pipe."""
    place.backup("run")

    assert place.stored()[0] in place.backup("list").out


def test_a_list_makes_nothing(place):
    """A repository that can only be read can be listed."""
    place.put(TIME, 1)
    place.backup("list")

    assert not (place.folder / "repo/web/.lock").exists()


def test_sizes_are_those_on_disk(place):
    """The size that counts is what the filesystem gives for it."""
    path = place.put(TIME, 1)
    found, _ = place.told("list")

    assert found["disk_size"] == path.stat().st_blocks * 512


def test_names_play_no_tricks_on_a_terminal(place):
    """Control characters of a foreign name are written out, on one line."""
    place.put(TIME, 1)
    (place.folder / "repo/web/a\x1b[2J\nb").write_text("")
    outcome = place.backup("list")

    assert "web: a\\x1b[2J\\nb is not of a backup" in outcome.err
