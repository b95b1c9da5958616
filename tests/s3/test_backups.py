"""A repository of backups in a bucket: the same verbs, another place."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.s3.place import NOW
from tests.support.backups import RAM
from tests.support.objects.server import BUCKET

pytestmark = pytest.mark.sweep


def test_nights_are_full_and_incremental(place):
    """Runs save into the bucket, the second one what changed since the first."""
    place.configure("full_every = 7")
    place.backup("run").ok()
    place.backup("run").ok()
    *listed, _ = place.told("list")

    assert [item["kind"] for item in listed] == ["full", "incremental"]
    assert listed[1]["parent"] == listed[0]["snapshot"]
    assert listed[0]["path"] == f"s3://{BUCKET}/{place.prefix}/web/{listed[0]['snapshot']}"
    assert place.stored() == [item["snapshot"] for item in listed]
    assert place.restored() == RAM


def test_a_repository_may_be_a_whole_bucket(place):
    """Without a prefix guests are at the top."""
    place.server.client.create_bucket(Bucket="whole")
    place.config.write_text('repository = "s3://whole"\n[guests.web]\nsource = "web.ram"')
    place.backup("run").ok()
    found = place.server.client.list_objects_v2(Bucket="whole")["Contents"]

    assert [item["Key"][:4] for item in found] == ["web/"]


def test_a_guest_is_restored_by_time(place):
    """The last snapshot from before a moment is taken."""
    for days, number in ((3, 1), (2, 2), (1, 3)):
        place.put(days, number, contents=b"night %d" % number)
    moment = (NOW - timedelta(days=1, hours=12)).isoformat()

    assert place.restored("--before", moment) == b"night 2"


def test_check_reads_all(place):
    """Every snapshot is decoded and found whole."""
    place.backup("run")
    place.put(1, 7)
    *found, summary = place.told("check")

    assert [(item["result"], item["read"]) for item in found] == [("ok", True)] * 2
    assert summary["exit_code"] == 0


def test_check_finds_damage(place):
    """A byte that changed in the bucket is told, with the exit code of corruption."""
    name = place.put(1, 7)
    key = f"{place.prefix}/web/{name}"
    content = bytearray(place.server.get(key))
    content[8200] ^= 1
    place.server.put(key, bytes(content))
    outcome = place.backup("check")

    outcome.fails(3, f"web: {name}: packet 0")


def test_prune_keeps_needed_parents(place):
    """The parents of a kept snapshot stay, snapshots without children go."""
    place.configure("[retention]\nkeep_last = 1")
    place.put(4, 1)
    kept = [place.put(3, 2), place.put(1, 3, parent=2)]
    place.put(2, 4, parent=1)

    place.backup("prune").ok()
    assert place.stored() == kept


def test_a_dry_run_changes_nothing(place):
    """A dry run prints its plan, and no object is made or removed."""
    place.configure("[retention]\nkeep_last = 1")
    names = [place.put(2, 1), place.put(1, 2)]
    planned = place.told("run", "--dry-run")[0]
    place.backup("prune", "--dry-run")

    assert (planned["result"], sorted(planned["removed"])) == ("planned", names)
    assert place.stored() == names


def test_what_is_not_ours_is_left_alone(place):
    """Other objects, and what is deeper, are reported and stay."""
    for name in ("notes.txt", "deeper/2026-11-23T02-15-00Z.snap"):
        place.server.put(f"{place.prefix}/web/{name}", b"something")
    place.configure("[retention]\nkeep_last = 1")
    place.put(2, 1)
    place.put(1, 2)
    outcome = place.backup("list")
    place.backup("prune")

    assert "deeper/ is not of a backup" in outcome.err
    assert "notes.txt is not of a backup" in outcome.err
    assert len(place.stored()) == 3


def test_an_object_that_says_nothing_stops_removals(place):
    """It may build on anything."""
    place.configure("[retention]\nkeep_last = 1")
    names = [place.put(3, 1), place.put(2, 2)]
    bad = f"{NOW - timedelta(days=1):%Y-%m-%dT%H-%M-%SZ}.snap"
    place.server.put(f"{place.prefix}/web/{bad}", b"no snapshot")
    outcome = place.backup("prune")

    outcome.warns()
    assert place.stored() == [*names, bad]


def test_hooks_are_told_urls(place):
    """Hooks get names of snapshots that snapmig takes."""
    command = f"echo $SNAPMIG_SNAPSHOT > {place.folder}/told"
    place.configure(f'[hooks]\nafter = ["sh", "-c", "{command}"]')
    place.backup("run")

    assert (place.folder / "told").read_text().startswith(f"s3://{BUCKET}/{place.prefix}/web/20")


def test_names_come_in_pages(place, monkeypatch):
    """More objects than a server lists at a time are all seen."""
    monkeypatch.setattr("snapmig.stores.prefix.PAGE", 2)
    names = [place.put(days, days) for days in range(1, 6)]

    assert [item.name for item in place.guest.read().snapshots] == names[::-1]


def test_a_run_takes_few_requests(place, proxy):
    """Beside the save: the lock, four lists, and one request for a small snapshot's superblock."""
    place.put(1, 1)
    place.backup("run", "-j1")
    about = [line.split(place.prefix)[-1][:9] for line in proxy.requests]
    lock = sum(each.startswith("/web/.loc") for each in about)
    snapshots = sum(each.startswith("/web/20") for each in about)

    assert (lock, snapshots, len(about) - lock - snapshots) == (11, 1 + 2 + 5, 4), proxy.requests
