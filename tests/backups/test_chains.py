"""Facts about what builds on what, and what the next snapshot is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from snapmig.backups.durations import parse_duration
from snapmig.backups.plan import Chains, plan_next
from snapmig.backups.repository import guest_folder
from tests.support.backups import built, root_among

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def snapshots(tmp_path):
    """Give a function that makes a snapshot a day, each on the parent of a number."""

    def make(*parents, **damage):
        folder = guest_folder(tmp_path, "web")
        folder.make()
        raws = []
        for number, parent in enumerate(parents, 1):
            time = START + timedelta(days=number)
            raws.append(built(number, time, parent, **root_among(raws, parent)))
            raw = bytearray(raws[-1])
            if number == damage.get("damaged"):
                raw[4096] ^= 1
            (folder.path / f"{time:%Y-%m-%dT%H-%M-%SZ}.snap").write_bytes(raw)
        found = list(folder.read().snapshots)
        return [item for item in found if item.snapshot_id[-1] != damage.get("missing")]

    return make


def now(days):
    """Return a number of days after the start."""
    return START + timedelta(days=days)


def problems(snapshots):
    """Return what keeps each snapshot from being restored."""
    chains = Chains(snapshots)
    return [chains.problem(item) for item in snapshots]


def test_a_whole_chain_has_no_problem(snapshots):
    """A snapshot can be restored if all that it builds on is there."""
    assert problems(snapshots(None, 1, 2, None)) == [None] * 4


def test_a_missing_parent_is_a_problem_of_all_its_children(snapshots):
    """Each snapshot that needs the missing one says so."""
    found = problems(snapshots(None, 1, 2, None, missing=1))

    assert found == [
        "its parent, the snapshot with the id 00000000000000000000000000000001, is not here",
        "needs 2026-11-03T00-00-00Z.snap: its parent, the snapshot with the id "
        "00000000000000000000000000000001, is not here",
        None,
    ]


def test_a_damaged_parent_is_a_problem_of_its_children(snapshots):
    """A chain is as good as its worst."""
    found = problems(snapshots(None, 1, damaged=1))

    assert ["block table's checksum" in problem for problem in found] == [True, True]


def test_another_parent_of_the_same_id_is_a_problem(snapshots, tmp_path):
    """A parent whose index is not what the child remembers is not its parent."""
    snapshots(None, 1)
    time = START + timedelta(days=1)
    path = tmp_path / "web" / f"{time:%Y-%m-%dT%H-%M-%SZ}.snap"
    path.write_bytes(built(1, time, contents=b"other contents"))

    assert problems(guest_folder(tmp_path, "web").read().snapshots) == [
        None,
        "its parent 2026-11-02T00-00-00Z.snap has changed since this was made",
    ]


def test_a_circle_is_a_problem(snapshots):
    """Snapshots that build on each other end in sentences, not in a loop."""
    first, second = problems(snapshots(2, 1))

    assert ("has changed since" in first, "among its own parents" in second) == (True, True)


def test_the_first_is_full(snapshots):
    """Without a snapshot there is nothing to build on."""
    assert plan_next(snapshots(), 7, now(1)).kind == "full"


@pytest.mark.parametrize(
    ("every", "parents", "kind"),
    [
        (1, [None], "full"),
        (2, [None], "incremental"),
        (2, [None, 1], "full"),
        (3, [None, 1], "incremental"),
        (3, [None, 1, 2], "full"),
        (3, [None, 1, 2, None], "incremental"),
        ("3d", [None, 1], "incremental"),
        ("2d", [None, 1], "full"),
        ("47h", [None, 1], "full"),
        ("49h", [None, 1], "incremental"),
    ],
)
def test_the_rule_of_full_ones(snapshots, every, parents, kind):
    """Of that many one is full, or the full one is at most that old."""
    every = parse_duration(every) if isinstance(every, str) else every

    assert plan_next(snapshots(*parents), every, now(max(3, len(parents)))).kind == kind


def test_the_newest_whole_one_is_the_parent(snapshots):
    """A snapshot that can't be restored is no parent."""
    plan = plan_next(snapshots(None, 1, 2, damaged=3), 9, now(4))

    assert plan.parent.snapshot_id[-1] == 2


def test_the_future_is_not_built_on(snapshots):
    """A snapshot of a clock that was wrong is no parent."""
    plan = plan_next(snapshots(None, 1, None), 9, now(2.5))

    assert plan.parent.snapshot_id[-1] == 2


def test_whole_days_are_those_of_the_calendar(snapshots):
    """A full one that was complete an hour later in the night, a week ago, is a week old."""
    found = snapshots(None)  # complete at midnight
    week, day = parse_duration("7d"), timedelta(days=1)

    late = [replace(found[0], time=found[0].time + timedelta(hours=3))]
    assert plan_next(late, week, now(8) + timedelta(hours=2)).kind == "full"
    assert plan_next(late, week, now(8) - day + timedelta(hours=5)).kind == "incremental"


def test_of_two_copies_the_whole_one_counts(snapshots, tmp_path):
    """A damaged copy of a parent does not spoil its children."""
    snapshots(None, 1)
    raw = bytearray(built(1, now(1)))
    raw[4096] ^= 1
    (tmp_path / "web" / "2027-01-01T00-00-00Z.snap").write_bytes(raw)
    found = guest_folder(tmp_path, "web").read().snapshots

    assert [problem is None for problem in problems(found)] == [True, False, True]


def test_chains_end_somewhere(snapshots, monkeypatch):
    """Hourly snapshots on one full one a year are more than can be open at once."""
    monkeypatch.setattr("snapmig.backups.plan.MAX_CHAIN", 3)
    found = snapshots(None, 1, 2)

    assert plan_next(found[:2], parse_duration("1y"), now(4)).kind == "incremental"
    assert plan_next(found, parse_duration("1y"), now(4)).kind == "full"
    assert plan_next(found, 100, now(4)).kind == "full"
