"""Facts about pruning a repository; which snapshots the rules keep is in test_retention."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapmig.backups.lock import locked

TIME = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def filled(place):
    """Give a place with six snapshots a day, the last three in a chain, and rules for one."""
    for number in range(1, 7):
        parent = number - 1 if number > 4 else None
        place.put(TIME + timedelta(days=number), number, parent)
    place.configure("[retention]\nkeep_last = 1")
    return place


def test_what_the_rules_do_not_keep_is_removed(filled):
    """Only the last one and what it builds on stay."""
    filled.backup("prune").ok()
    assert [name[:10] for name in filled.stored()] == ["2026-11-05", "2026-11-06", "2026-11-07"]


def test_a_dry_run_removes_nothing(filled):
    """Snapshots to be removed are named, and stay."""
    outcome = filled.backup("prune", "--dry-run")

    outcome.ok()
    assert outcome.out.count("would remove") == 3
    assert len(filled.stored()) == 6


def test_a_dry_run_makes_no_lock(filled):
    """A dry run works on a disk that can only be read."""
    filled.backup("prune", "--dry-run")

    assert not (filled.folder / "repo/web/.lock").exists()


def test_each_snapshot_has_a_line_with_its_reasons(filled):
    """The reason why a snapshot stays is given."""
    *found, _ = filled.told("prune", "-n")

    assert [(item["action"], item["reasons"]) for item in found] == [
        ("would remove", []),
        ("would remove", []),
        ("would remove", []),
        ("kept", ["parent of 2026-11-06T12-00-00Z.snap"]),
        ("kept", ["parent of 2026-11-07T12-00-00Z.snap"]),
        ("kept", ["last"]),
    ]


def test_without_rules_nothing_is_removed(filled):
    """An empty retention keeps everything."""
    filled.configure("[retention]")
    filled.backup("prune")

    assert len(filled.stored()) == 6


def test_only_snapshots_are_removed(filled):
    """Foreign files stay, and what killed runs left goes."""
    folder = filled.folder / "repo" / "web"
    (folder / "notes.txt").write_text("mine")
    (folder / ".2026-11-01T00-00-00Z.snap.0123456789ab.partial").write_text("half")
    filled.backup("prune")

    assert filled.stored()[3:] == ["notes.txt"]


def test_an_unreadable_snapshot_stops_removals(filled):
    """Its parent is not known, so all stay, with a warning."""
    (filled.folder / "repo/web/2001-01-01T00-00-00Z.snap").write_bytes(b"")
    outcome = filled.backup("prune")

    outcome.warns()
    assert len(filled.stored()) == 7


def test_a_damaged_child_keeps_its_parents(filled):
    """A damaged snapshot still says what it builds on, and that stays with it."""
    path = filled.folder / "repo/web/2026-11-07T12-00-00Z.snap"
    raw = bytearray(path.read_bytes())
    raw[4096] ^= 1
    path.write_bytes(raw)
    filled.backup("prune")

    assert len(filled.stored()) == 3


def test_what_can_not_be_restored_pushes_nothing_out(place):
    """The last snapshot that can be restored is kept, whatever came after it."""
    place.configure("[retention]\nkeep_last = 1")
    place.put(TIME, 1)
    place.put(TIME + timedelta(days=1), 2)
    place.put(TIME + timedelta(days=2), 9, parent=8)
    *found, _ = place.told("prune")

    assert [(item["action"], item["reasons"]) for item in found] == [
        ("removed", []),
        ("kept", ["last"]),
        ("kept", ["damaged"]),
    ]


def test_children_go_before_their_parents(filled, monkeypatch):
    """Wherever a removal is interrupted, no snapshot lacks its parent."""
    filled.put(TIME + timedelta(days=9), 9)
    removed = []
    unlink = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, **how: (removed.append(path.name[:10]), unlink(path, **how))
    )
    filled.backup("prune")

    assert removed[:3] == ["2026-11-07", "2026-11-06", "2026-11-02"]
    assert len(filled.stored()) == 1


def test_a_held_lock_is_an_error_of_its_own(filled):
    """While another run works on the guest nothing is removed."""
    with locked(filled.folder / "repo" / "web", 0):
        outcome = filled.backup("prune")

    outcome.fails(7, "locked by process")
    assert len(filled.stored()) == 6


def test_a_guest_without_snapshots_is_no_error(place):
    """Before its first save there is nothing to remove."""
    place.backup("prune").ok()
    assert list((place.folder / "repo").iterdir()) == []


def test_progress_counts_what_is_removed(filled):
    """In bytes on disk, from none to all."""
    doomed = sorted((filled.folder / "repo" / "web").glob("*.snap"))[:3]
    size = sum(path.stat().st_blocks * 512 for path in doomed)
    err = filled.backup("prune", "--progress=json").ok(err=None).err
    told = [json.loads(line) for line in err.splitlines()]

    assert [(told[at]["done_bytes"], told[at]["total_bytes"]) for at in (0, -1)] == [
        (0, size),
        (size, size),
    ]


def test_a_bar_counts_what_is_removed(filled):
    """It has the name of the guest."""
    assert "pruning web: 100%|" in filled.backup("prune", "--progress=tty").err


def test_without_removals_there_is_no_bar(filled):
    """All that is kept takes no time."""
    filled.backup("prune").ok()
    filled.backup("prune", "--progress=tty").ok()


def test_results_do_not_depend_on_progress(filled):
    """Progress is on stderr alone."""
    lines = [filled.told("prune", "-n", *more) for more in ([], ["--progress=json"])]
    for line in lines:
        del line[-1]["seconds"]

    assert lines[0] == lines[1]
